//! What the service manager that started this process (systemd, with `Type=notify`) is told of it. Without one, nothing.

use sd_notify::NotifyState;

/// It serves.
pub(crate) fn serving() {
    tell(NotifyState::Ready);
}

/// It was asked to end.
pub(crate) fn stopping() {
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(false, &[state]) {
        tracing::warn!(%error, "cannot tell the service manager (NOTIFY_SOCKET) how this process is");
    }
}
