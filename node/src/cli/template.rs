//! `template`: files that follow the cluster, as consul-template's do.
//!
//! A template says what it needs by asking for it: `service("web")`, `key("app/limit")`. Each thing asked for is
//! watched. The file is rendered when all of them are known, and again when one has changed and nothing more has come
//! for a moment. It is replaced as a whole, after its checker has accepted it. While the cluster does not answer, it
//! stays as it is.

mod needs;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::future::select_all;
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};
use quorate_client::Watch;
use serde_json::Value;

use self::needs::{Need, Needs};
use super::ending::Ending;
use super::failure::Failure;
use super::file::{self, Draft};
use super::patience::patiently;
use super::session::{Session, span};
use super::watch::shell;
use super::{child, output};

/// The mode of a file that did not exist.
const MODE: u32 = 0o644;
/// Where the path of the new file goes in the checker's command line.
const PLACE: &str = "{}";

/// What is watched.
type Watches = BTreeMap<Need, Watch<Value>>;

/// Arguments of `template`.
#[derive(Debug, Args)]
#[command(after_help = "In a template (Jinja2's language):\n  \
    {% for i in service(\"web\") %}server {{ i.id }} {{ i.address }}:{{ i.port }}{% endfor %}\n\n  \
    service(NAME, passing=true, tag=\"\")  instances: id, service, node, address, port, tags, meta, status, weight\n  \
    services()                           names of services with their tags: name, tags\n  \
    nodes()                              nodes: name, id, address, meta\n  \
    key(KEY, default)                    a value as text; without a default it is waited for\n  \
    keys(PREFIX)                         keys below a prefix: key, value, flags\n  \
    env(NAME)                            a variable of the environment, or nothing\n\n\
    Example:\n  quorate template haproxy.tmpl /etc/haproxy/haproxy.cfg \\\n    \
    --validate 'haproxy -c -f {}' --run 'systemctl reload haproxy'")]
pub(crate) struct TemplateArgs {
    /// The template
    source: PathBuf,
    /// The file that it makes; `-` is standard output
    destination: PathBuf,
    /// Run this with the shell before the file is replaced; {} is the new file. If it fails, the file stays
    #[arg(long, value_name = "COMMAND")]
    validate: Option<String>,
    /// Run this with the shell after the file has changed
    #[arg(long, value_name = "COMMAND")]
    run: Option<String>,
    /// Render when nothing more has changed for so long
    #[arg(long, value_name = "SPAN", value_parser = span, default_value = "100ms")]
    quiet: Duration,
    /// Render after so long, however much changes
    #[arg(long, value_name = "SPAN", value_parser = span, default_value = "2s")]
    wait_max: Duration,
    /// End when the file has been rendered once
    #[arg(long)]
    once: bool,
}

impl TemplateArgs {
    /// A command that goes on says what went wrong, and goes on.
    fn complain(&self, text: String) -> Result<(), Failure> {
        if self.once {
            return Err(Failure::failed(text));
        }
        output::note(&text);
        Ok(())
    }
}

/// Whether two paths lead to one file that exists.
fn is_same(one: &Path, other: &Path) -> bool {
    one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

pub(super) async fn run(session: &Session, args: TemplateArgs) -> Result<ExitCode, Failure> {
    if is_same(&args.source, &args.destination) {
        let text = format!("{} would be replaced by what it makes", args.source.display());
        return Err(Failure::usage(text));
    }
    let source = file::read(&args.source)?;
    let source = String::from_utf8(source)
        .map_err(|error| Failure::usage(format!("{}: {error}", args.source.display())))?;
    let needs = Arc::new(Needs::default());
    let environment = environment(&source, &needs, &args.source)?;
    let mut ending = if file::is_standard(&args.destination) {
        Ending::with_reader()?
    } else {
        Ending::by_signal()?
    };
    let mut watches = Watches::new();
    let mut said = BTreeSet::new();
    loop {
        let text = render(&environment, &args.source, &needs, &watches)?;
        let missing = needs.missing();
        if missing.is_empty() {
            publish(&args, &text, &mut ending).await?;
            if args.once {
                return Ok(ExitCode::SUCCESS);
            }
        }
        let wanted = needs.wanted();
        watches.retain(|need, _| wanted.contains(need));
        for need in wanted {
            if let Entry::Vacant(vacant) = watches.entry(need) {
                let watch = vacant.key().watch(session)?;
                vacant.insert(watch);
            }
        }
        if watches.is_empty() {
            // It needs nothing, so it never changes.
            return Ok(ExitCode::SUCCESS);
        }
        say_what_is_absent(&missing, &watches, &mut said);
        let trouble = |watches: &Watches| {
            watches.values().find_map(Watch::trouble).map(|trouble| trouble.error)
        };
        let next = async |watches: &mut Watches| change(watches).await;
        ending.unless(patiently(&mut watches, args.once, next, trouble)).await?;
        let settled = async {
            settle(&mut watches, &args).await;
            Ok(())
        };
        ending.unless(settled).await?;
    }
}

/// The template, and what it can ask for.
fn environment(
    source: &str,
    needs: &Arc<Needs>,
    path: &Path,
) -> Result<Environment<'static>, Failure> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // Whatever the file is called, its text is taken as it is.
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_syntax(whitespace(path)?);
    needs::add_functions(&mut environment, needs);
    environment
        .add_template_owned(name(path), source.to_owned())
        .map_err(|error| Failure::usage(format!("{}: {error:#}", path.display())))?;
    Ok(environment)
}

/// A line with nothing but a block leaves no line in the file.
fn whitespace(path: &Path) -> Result<SyntaxConfig, Failure> {
    let mut syntax = SyntaxConfig::builder();
    syntax.keep_trailing_newline(true).trim_blocks(true).lstrip_blocks(true);
    syntax.build().map_err(|error| Failure::failed(format!("{}: {error:#}", path.display())))
}

/// What a template is called in error texts.
fn name(path: &Path) -> String {
    path.display().to_string()
}

fn render(
    environment: &Environment<'_>,
    path: &Path,
    needs: &Needs,
    watches: &Watches,
) -> Result<String, Failure> {
    let known = watches.iter().filter_map(|(need, watch)| Some((need.clone(), watch.latest()?)));
    needs.begin(known.collect());
    let rendered = environment.get_template(&name(path)).and_then(|template| template.render(()));
    // What it makes of values that are missing yet is thrown away, errors included.
    match rendered {
        Err(error) if is_mistake(error.kind()) => Err(Failure::usage(format!("{error:#}"))),
        Err(error) if needs.missing().is_empty() => Err(Failure::failed(format!("{error:#}"))),
        rendered => Ok(rendered.unwrap_or_default()),
    }
}

/// Whether the template is wrong, whatever the values are.
const fn is_mistake(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::SyntaxError
            | ErrorKind::UnknownFilter
            | ErrorKind::UnknownFunction
            | ErrorKind::UnknownTest
            | ErrorKind::UnknownMethod
            | ErrorKind::MissingArgument
            | ErrorKind::TooManyArguments
    )
}

/// Says of each key once that it does not exist. Those that nobody has answered for yet may.
fn say_what_is_absent(missing: &[Need], watches: &Watches, said: &mut BTreeSet<Need>) {
    for need in missing {
        let is_answered = watches.get(need).is_some_and(|watch| watch.latest().is_some());
        if is_answered && said.insert(need.clone()) {
            output::note(&format!("waiting for {need}"));
        }
    }
    said.retain(|need| missing.contains(need));
}

/// Waits for a change of any.
async fn change(watches: &mut Watches) {
    let changes: Vec<_> = watches.values_mut().map(|watch| Box::pin(watch.changed())).collect();
    select_all(changes).await;
}

/// Waits until nothing more comes for a moment.
async fn settle(watches: &mut Watches, args: &TemplateArgs) {
    let settled =
        async { while tokio::time::timeout(args.quiet, change(watches)).await.is_ok() {} };
    let _ = tokio::time::timeout(args.wait_max, settled).await;
}

/// Replaces the file, if it differs.
async fn publish(args: &TemplateArgs, text: &str, ending: &mut Ending) -> Result<(), Failure> {
    let path = args.destination.as_path();
    let mut new = Draft::new(path, MODE)?;
    if new.is_same_as(text.as_bytes()) {
        return Ok(());
    }
    let written = new.file().write_all(text.as_bytes());
    written.map_err(|error| Failure::of_file(path, &error))?;
    if let Some(checker) = &args.validate {
        let checker = checker.replace(PLACE, &new.file().path().display().to_string());
        let status = child::run_with_input(&shell(&checker), b"", &mut ending.signals).await?;
        if !status.success() {
            let text =
                format!("{} was not replaced: its checker ended with {status}", path.display());
            return args.complain(text);
        }
    }
    new.publish()?;
    if !file::is_standard(path) {
        output::note(&format!("wrote {}", path.display()));
    }
    if let Some(command) = &args.run {
        let status = child::run_with_input(&shell(command), b"", &mut ending.signals).await?;
        if !status.success() {
            let text = format!("the command after the change ended with {status}");
            return args.complain(text);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(source: &str, known: &[(Need, Value)]) -> (String, Vec<Need>) {
        let needs = Arc::new(Needs::default());
        let environment = environment(source, &needs, Path::new("x")).unwrap();
        needs.begin(
            known.iter().map(|(need, value)| (need.clone(), Arc::new(value.clone()))).collect(),
        );
        let text = environment.get_template("x").unwrap().render(()).unwrap_or_default();
        (text, needs.missing())
    }

    fn web() -> Need {
        Need::Service { name: "web".to_owned(), passing: true, tag: String::new() }
    }

    #[test]
    fn a_template_asks_for_what_it_needs_and_renders_it() {
        let source = "{% for i in service(\"web\") %}\n{{ i.id }}={{ i.port }}\n{% endfor %}";
        assert_eq!(rendered(source, &[]).1, [web()]);
        let rows = serde_json::json!([{ "id": "a", "port": 1 }, { "id": "b", "port": 2 }]);
        assert_eq!(rendered(source, &[(web(), rows)]), ("a=1\nb=2\n".to_owned(), Vec::new()));
    }

    #[test]
    fn a_key_without_a_default_is_waited_for() {
        let limit = Need::Key { key: "limit".to_owned() };
        let absent = [(limit.clone(), Value::Null)];
        assert_eq!(rendered("{{ key(\"limit\") }}", &absent).1, std::slice::from_ref(&limit));
        assert_eq!(rendered("{{ key(\"limit\", \"7\") }}", &absent).0, "7");
        let present = [(limit, Value::from("9"))];
        assert_eq!(rendered("{{ key(\"limit\", \"7\") }}", &present).0, "9");
    }

    #[test]
    fn what_a_branch_needs_is_asked_for_when_it_is_taken() {
        let source = "{% if key(\"on\", \"no\") == \"yes\" %}{{ key(\"more\") }}{% endif %}";
        let on = Need::Key { key: "on".to_owned() };
        assert_eq!(rendered(source, &[(on.clone(), Value::from("no"))]).1, []);
        let more = Need::Key { key: "more".to_owned() };
        assert_eq!(rendered(source, &[(on, Value::from("yes"))]).1, [more]);
    }

    #[test]
    fn a_mistake_in_a_template_names_its_line() {
        let needs = Arc::new(Needs::default());
        let wrong = environment("a\n{% for %}", &needs, Path::new("x.tmpl")).unwrap_err();
        assert!(
            format!("{wrong:?}").contains("x.tmpl") && format!("{wrong:?}").contains(":2"),
            "{wrong:?}"
        );
    }

    #[test]
    fn what_is_wrong_in_a_template_whatever_the_values_is_wrong_usage_and_names_the_file() {
        let ends = |source: &str| {
            let needs = Arc::new(Needs::default());
            let path = Path::new("x.html");
            let environment = environment(source, &needs, path).unwrap();
            let failure = render(&environment, path, &needs, &Watches::new()).unwrap_err();
            format!("{failure:?}")
        };
        let unknown = ends("{{ key(\"not/known/yet\") }}\n{{ nonsense() }}");
        assert!(unknown.contains("code: 2") && unknown.contains("x.html:2"), "{unknown}");
        let failed = ends("{{ 1 / 0 }}");
        assert!(failed.contains("code: 1") && failed.contains("x.html:1"), "{failed}");
    }

    #[test]
    fn text_is_never_escaped_whatever_the_file_is_called() {
        let (needs, path) = (Arc::new(Needs::default()), Path::new("x.html"));
        let environment = environment("{{ \"<a>\" }}", &needs, path).unwrap();
        assert_eq!(render(&environment, path, &needs, &Watches::new()).unwrap(), "<a>");
    }
}
