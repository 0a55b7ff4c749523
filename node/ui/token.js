// The token that the page sends, if the cluster asks for tokens. It is kept for this tab alone, until it is closed, and
// sent to the members of the cluster only.

const KEY = "quorate-token";

/// What every request has.
export function headers() {
  const secret = sessionStorage.getItem(KEY);
  return secret === null ? {} : { "X-Consul-Token": secret };
}

/// Whether there is one.
export const hasToken = () => sessionStorage.getItem(KEY) !== null;

/// Takes another one, or with an empty text none, and begins anew: what is shown was for other eyes.
export function use(secret) {
  if (secret === "") sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, secret);
  location.reload();
}
