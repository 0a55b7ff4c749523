//! The scene on a terminal.

use quorate_client::types::live::Instance;
use quorate_client::types::operator::ServerHealth;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Table};

use super::scene::{Group, Scene};
use super::view::{Shown, View};
use crate::cli::output::{age, printable};

/// A column is at most so wide.
const COLUMN_MAX: usize = 32;
/// Between two columns.
const GAP: u16 = 2;
/// The columns of the tables.
const SERVICES: &[&str] = &["SERVICE", "PASSING", "WARNING", "CRITICAL", "LONGEST SILENCE"];
const NODES: &[&str] = &["NODE", "PASSING", "WARNING", "CRITICAL", "LONGEST SILENCE"];
const SERVERS: &[&str] = &["SERVER", "ADDRESS", "ROLE", "HEALTH", "HEARD"];
const INSTANCES: &[&str] = &[
    "SERVICE", "ID", "NODE", "ADDRESS", "STATUS", "HEARD", "PROCESS", "PID", "VERSION", "COUNTER",
];

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, scene: &Scene, view: &mut View) {
    let servers = u16::try_from(scene.servers.len()).unwrap_or(u16::MAX);
    let [top, above, tabs, table, below] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(if servers == 0 { 0 } else { servers.saturating_add(2) }),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(summary(scene)), top);
    draw_table(frame, above, &servers_table(&scene.servers), 0);
    frame.render_widget(Paragraph::new(titles(view.shown)), tabs);
    let rows = match view.shown {
        Shown::Services => groups_table(SERVICES, &scene.groups(|instance| &instance.service)),
        Shown::Instances => instances_table(&scene.instances),
        Shown::Nodes => groups_table(NODES, &scene.groups(|instance| &instance.node)),
    };
    // Its headings take a line.
    let first = view.first_of(rows.cells.len(), usize::from(table.height.saturating_sub(1)));
    draw_table(frame, table, &rows, first);
    frame.render_widget(Paragraph::new("Tab: next table   arrows: scroll   q: end"), below);
}

/// Takes the colours out of what was drawn.
pub(super) fn bleach(frame: &mut Frame<'_>) {
    for cell in &mut frame.buffer_mut().content {
        cell.set_fg(Color::Reset);
    }
}

/// Who leads, and how it all is.
fn summary(scene: &Scene) -> Line<'static> {
    if let Some(trouble) = &scene.trouble {
        return Line::styled(format!("not current: {}", printable(trouble)), colour("critical"));
    }
    let Some(leader) = scene.servers.iter().find(|server| server.leader) else {
        let text = "there is no leader: this is what one server knows, and it may be old";
        return Line::styled(text, colour("critical"));
    };
    let healthy = scene.servers.iter().filter(|server| server.healthy).count();
    let (all, may_fail, tally) = (scene.servers.len(), scene.may_fail, scene.tally());
    Line::raw(format!(
        "{} leads, {healthy} of {all} servers healthy, {may_fail} may fail; \
         instances: {} passing, {} warning, {} critical",
        printable(&leader.name),
        tally.passing,
        tally.warning,
        tally.critical,
    ))
}

/// The names of the tables, with the keys that show them.
fn titles(shown: Shown) -> Line<'static> {
    let spans = Shown::ALL.into_iter().zip(1..).flat_map(|(table, key)| {
        let style = if table == shown { Modifier::REVERSED } else { Modifier::empty() };
        let title = format!(" {key} {} ", table.title());
        [Span::styled(title, Style::default().add_modifier(style)), Span::raw(" ")]
    });
    Line::from_iter(spans)
}

/// A table, of which each row has a status that colours it.
struct Rows {
    headings: &'static [&'static str],
    cells: Vec<(String, Vec<String>)>,
}

fn servers_table(servers: &[ServerHealth]) -> Rows {
    let row = |server: &ServerHealth| {
        let status = if server.healthy { "passing" } else { "critical" };
        let role = match (server.leader, server.voter) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "learner",
        };
        let health = if server.healthy { "healthy" } else { "not healthy" };
        let cells =
            [&server.name, &server.address, role, health, &server.last_contact].map(printable);
        (status.to_owned(), cells.to_vec())
    };
    Rows { headings: SERVERS, cells: servers.iter().map(row).collect() }
}

fn groups_table(headings: &'static [&'static str], groups: &[Group]) -> Rows {
    let row = |group: &Group| {
        let status = match group.tally {
            tally if tally.critical > 0 => "critical",
            tally if tally.warning > 0 => "warning",
            _ => "passing",
        };
        let numbers = [group.tally.passing, group.tally.warning, group.tally.critical];
        let mut cells = vec![printable(&group.name)];
        cells.extend(numbers.map(|number| number.to_string()));
        cells.push(group.silence_ms.map(age).unwrap_or_default());
        (status.to_owned(), cells)
    };
    Rows { headings, cells: groups.iter().map(row).collect() }
}

fn instances_table(instances: &[Instance]) -> Rows {
    let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    let row = |instance: &Instance| {
        let Instance { service, id, node, status, process, version, .. } = instance;
        let address = format!("{}:{}", instance.address, instance.port);
        let heard = instance.age_ms.map(age).unwrap_or_default();
        let (pid, counter) = (number(instance.pid), number(instance.counter));
        let cells = [service, id, node, &address, status, &heard, process, &pid, version, &counter];
        (status.clone(), cells.map(|text| printable(text)).to_vec())
    };
    Rows { headings: INSTANCES, cells: instances.iter().map(row).collect() }
}

/// Draws the rows that have room, beginning with `first`.
fn draw_table(frame: &mut Frame<'_>, area: Rect, table: &Rows, first: usize) {
    let shown: Vec<_> = table.cells.iter().skip(first).take(usize::from(area.height)).collect();
    let widths = table.headings.iter().enumerate().map(|(column, heading)| {
        let cells = shown.iter().map(|(_, cells)| cells[column].chars().count());
        let width = cells.max().unwrap_or(0).clamp(heading.len(), COLUMN_MAX);
        Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX))
    });
    let widths: Vec<_> = widths.collect();
    let rows = shown
        .iter()
        .map(|(status, cells)| Row::new(cells.iter().map(String::as_str)).style(colour(status)));
    let bold = Style::default().add_modifier(Modifier::BOLD);
    let headings = Row::new(table.headings.iter().copied()).style(bold);
    frame.render_widget(Table::new(rows, widths).header(headings).column_spacing(GAP), area);
}

/// The word always stands beside the colour.
fn colour(status: &str) -> Style {
    match status {
        "passing" => Style::default(),
        "warning" => Style::default().fg(Color::Yellow),
        _ => Style::default().fg(Color::Red),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::termion::event::Key;

    use super::*;

    fn server(name: &str, healthy: bool, leader: bool) -> ServerHealth {
        ServerHealth {
            name: name.to_owned(),
            address: format!("{name}:8300"),
            last_contact: "20ms".to_owned(),
            healthy,
            leader,
            voter: true,
            ..ServerHealth::default()
        }
    }

    fn instance(service: &str, id: &str, status: &str, age_ms: u64) -> Instance {
        Instance {
            service: service.to_owned(),
            id: id.to_owned(),
            node: "host-1".to_owned(),
            address: "10.0.0.7".to_owned(),
            port: 80,
            status: status.to_owned(),
            age_ms: Some(age_ms),
            pid: Some(7),
            ..Instance::default()
        }
    }

    fn scene() -> Scene {
        Scene {
            servers: vec![server("n1", true, true), server("n2", false, false)],
            may_fail: 0,
            instances: vec![
                instance("web", "web-2", "critical", 95_000),
                instance("api", "a\u{1b}[2J", "passing", 300),
                instance("web", "web-1", "passing", 2_000),
            ],
            trouble: None,
        }
    }

    /// What is on the screen, line by line.
    fn screen(scene: &Scene, view: &mut View, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(110, height)).unwrap();
        terminal.draw(|frame| draw(frame, scene, view)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |cells: &[ratatui::buffer::Cell]| {
            cells
                .iter()
                .map(ratatui::buffer::Cell::symbol)
                .collect::<String>()
                .trim_end()
                .to_owned()
        };
        buffer.content().chunks(110).map(line).collect()
    }

    #[test]
    fn servers_and_services_are_shown_the_worst_first() {
        assert_eq!(
            screen(&scene(), &mut View::default(), 10),
            [
                "n1 leads, 1 of 2 servers healthy, 0 may fail; instances: 2 passing, 0 warning, 1 critical",
                "SERVER  ADDRESS  ROLE    HEALTH       HEARD",
                "n1      n1:8300  leader  healthy      20ms",
                "n2      n2:8300  voter   not healthy  20ms",
                "",
                " 1 services   2 instances   3 nodes",
                "SERVICE  PASSING  WARNING  CRITICAL  LONGEST SILENCE",
                "web      1        0        1         95 s",
                "api      1        0        0         300 ms",
                "Tab: next table   arrows: scroll   q: end",
            ]
        );
    }

    #[test]
    fn instances_are_shown_with_their_facts_and_nothing_moves_the_cursor() {
        let mut view = View::default();
        view.take(Key::Char('2'));
        let all = screen(&scene(), &mut view, 11);
        assert_eq!(
            all[6..10],
            [
                "SERVICE  ID     NODE    ADDRESS      STATUS    HEARD   PROCESS  PID  VERSION  COUNTER",
                "web      web-2  host-1  10.0.0.7:80  critical  95 s             7",
                "api      a\u{fffd}[2J  host-1  10.0.0.7:80  passing   300 ms           7",
                "web      web-1  host-1  10.0.0.7:80  passing   2 s              7",
            ]
        );
        view.take(Key::End);
        let last = screen(&scene(), &mut view, 9);
        assert!(last[7].starts_with("web      web-1"), "{last:?}");
    }

    #[test]
    fn a_picture_that_is_not_current_says_so() {
        let mut scene = scene();
        scene.renew(Err(quorate_client::Error::Configuration("nobody answers".to_owned())));
        let lines = screen(&scene, &mut View::default(), 10);
        assert!(lines[0].starts_with("not current:"), "{lines:?}");
        assert!(lines[7].starts_with("web "), "what was seen before stays: {lines:?}");
        let without_leader = Scene { servers: Vec::new(), ..self::scene() };
        let lines = screen(&without_leader, &mut View::default(), 10);
        assert!(lines[0].starts_with("there is no leader"), "{lines:?}");
    }

    #[test]
    fn a_terminal_of_no_size_is_drawn_too() {
        for (width, height) in [(0, 0), (1, 1), (3, 20)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| draw(frame, &scene(), &mut View::default())).unwrap();
        }
    }
}
