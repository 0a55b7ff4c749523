//! The commands in a Markdown text.

/// A shell command with what the text says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// As it is written: perhaps several lines, with its comment.
    pub(crate) text: String,
    /// What it prints, if the comment is `# true` or `# false`.
    pub(crate) output: Option<String>,
    /// What some command of its block prints, if the comment has `prints WORD`.
    pub(crate) block_prints: Option<String>,
    /// The exit code: 0 unless the comment has `exit code N`.
    pub(crate) exit_code: i32,
}

/// First words of a command, or how they begin.
const PROGRAMS: &[&str] = &[
    "cluster-scripts/",
    "target/",
    "jepsen-style-tests/tests/",
    ".ci/",
    "curl",
    "quorate",
    "cargo",
];

/// Whether a text looks like a command: a program, or a variable and something that uses it.
pub(crate) fn is_command(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let first = words.next().unwrap_or_default();
    let assigns = words.next().is_some()
        && first.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        });
    assigns
        || PROGRAMS.iter().any(|program| match program.ends_with('/') {
            true => first.starts_with(program) && first.len() > program.len(),
            false => first == *program,
        })
}

/// The part of a text below a heading, up to the next one; an empty heading is the part above the first.
pub(crate) fn section<'text>(text: &'text str, heading: &str) -> &'text str {
    let from = match heading {
        "" => 0,
        _ => text.find(&format!("\n{heading}\n")).expect("the heading is there") + 1,
    };
    let part = &text[from..];
    // Not the heading itself.
    part[1..].find("\n#").map_or(part, |end| &part[..end + 1])
}

/// The indented blocks that hold commands.
pub(crate) fn blocks(text: &str) -> Vec<Vec<Command>> {
    let mut blocks = vec![String::new()];
    for line in text.lines() {
        match line.strip_prefix("    ") {
            Some(line) => {
                let block = blocks.last_mut().expect("there is always one");
                block.push_str(line);
                block.push('\n');
            }
            None if blocks.last().is_some_and(|block| !block.is_empty()) => {
                blocks.push(String::new())
            }
            None => {}
        }
    }
    blocks.iter().filter(|block| is_command(block)).map(|block| commands(block)).collect()
}

/// The commands of one block: a command continues while a quote is open, and after a backslash.
fn commands(block: &str) -> Vec<Command> {
    let mut commands = Vec::new();
    let mut text = String::new();
    for line in block.lines() {
        text.push_str(line);
        let (code, comment) = split_comment(&text);
        if code.matches('\'').count() % 2 == 1 || code.ends_with('\\') {
            text.push('\n');
            continue;
        }
        commands.push(command(&text, comment));
        text.clear();
    }
    assert!(text.is_empty(), "a command without an end: {text}");
    commands
}

/// A comment has a blank before it and after it, so `#` in a URL is none.
fn split_comment(text: &str) -> (&str, &str) {
    let (code, comment) = text.split_once(" # ").unwrap_or((text, ""));
    (code.trim_end(), comment)
}

fn command(text: &str, comment: &str) -> Command {
    let first = comment.split(';').next().unwrap_or_default().trim();
    let word_after = |phrase: &str| {
        let (_, rest) = comment.split_once(phrase)?;
        rest.split_whitespace().next().map(str::to_owned)
    };
    Command {
        text: text.to_owned(),
        output: ["true", "false"].contains(&first).then(|| first.to_owned()),
        block_prints: word_after("prints "),
        exit_code: word_after("exit code ").map_or(0, |code| code.parse().expect("a number")),
    }
}

/// What stands between backquotes in the prose, and looks like a command.
pub(crate) fn inline_commands(text: &str) -> Vec<String> {
    let prose: Vec<&str> = text.lines().filter(|line| !line.starts_with("    ")).collect();
    let prose = prose.join(" ");
    let spans = prose.split('`').skip(1).step_by(2);
    // A file's name is no command, and neither is a program's.
    let spans = spans.filter(|span| is_command(span) && *span != "quorate");
    spans.map(str::to_owned).collect()
}

#[test]
fn commands_are_taken_with_what_is_said_about_them() {
    let text = "A `quorate dev --x`, `a/file.rs`, `LOG=x`, `N=1\ncargo test`.\n\n    curl a#b -d '\n      {}'\n    x=$(curl 'y' | cut -d'\"' -f4) # true; c prints red\n\
                \n    map/   the rest\n\n    curl \\\n        z   # exit code 3 while it is off\n";
    let blocks = blocks(text);
    let texts: Vec<Vec<&str>> =
        blocks.iter().map(|block| block.iter().map(|c| c.text.as_str()).collect()).collect();
    assert_eq!(texts[0][0], "curl a#b -d '\n  {}'");
    assert_eq!((texts.len(), texts[0].len(), texts[1].len()), (2, 2, 1));
    assert_eq!(blocks[0][1].output.as_deref(), Some("true"));
    assert_eq!(blocks[0][1].block_prints.as_deref(), Some("red"));
    assert_eq!((blocks[0][0].exit_code, blocks[1][0].exit_code), (0, 3));
    assert_eq!(inline_commands(text), ["quorate dev --x", "N=1 cargo test"]);
    let sections = "top\n## One\na\n## Two\nb\n";
    assert_eq!((section(sections, ""), section(sections, "## One")), ("top", "## One\na"));
}
