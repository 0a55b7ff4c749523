//! `top`: a live table of services, instances and nodes.
//!
//! The cluster is asked again and again; keys are answered at once meanwhile. While nobody answers, the last picture
//! stays, with what is wrong above it.

mod keys;
mod picture;
mod scene;
mod view;

use std::io::{self, IsTerminal as _, stdin, stdout};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use quorate_client::Error;
use ratatui::Terminal;
use ratatui::backend::TermionBackend;
use ratatui::termion::raw::IntoRawMode as _;
use ratatui::termion::screen::IntoAlternateScreen as _;
use tokio::signal::unix::{SignalKind, signal};

use self::keys::Keys;
use self::scene::Scene;
use self::view::View;
use super::failure::Failure;
use super::output;
use super::session::{Session, span};

/// The cluster is asked at most so often.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Arguments of `top`.
#[derive(Debug, Args)]
#[command(after_help = "Keys:\n  Tab, 1, 2, 3   services, instances, nodes\n  \
    arrows, PgUp, PgDn, Home, End   through the table\n  q, Ctrl-C   end\n\n\
    What is worst comes first. `quorate instances` prints the same once.")]
pub(crate) struct TopArgs {
    /// How often the cluster is asked
    #[arg(long, value_name = "SPAN", value_parser = span, default_value = "1s")]
    interval: Duration,
}

pub(super) async fn run(session: &Session, args: TopArgs) -> Result<ExitCode, Failure> {
    if session.is_for_programs() || !stdin().is_terminal() || !stdout().is_terminal() {
        let text =
            "top draws on a terminal, and here is none; `quorate instances` prints the same once";
        return Err(Failure::usage(text));
    }
    // Before the terminal is touched: whoever has nobody to ask is told so as by any other command.
    let scene = Scene::look(session).await?;
    follow(session, &args, scene)
        .await
        .map_err(|error| Failure::failed(format!("the terminal cannot be used: {error}")))?;
    Ok(ExitCode::SUCCESS)
}

/// Draws until somebody has seen enough. The terminal is as before when this returns.
async fn follow(session: &Session, args: &TopArgs, mut scene: Scene) -> io::Result<()> {
    let screen = stdout().into_raw_mode()?.into_alternate_screen()?;
    let mut terminal = Terminal::new(TermionBackend::new(screen))?;
    let mut view = View::default();
    let mut keys = Keys::open()?;
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    let mut resizes = signal(SignalKind::window_change())?;
    let is_coloured = output::is_coloured();
    let mut looking = Box::pin(look_after(session, args.interval));
    while !view.is_over() {
        terminal.draw(|frame| {
            picture::draw(frame, &scene, &mut view);
            if !is_coloured {
                picture::bleach(frame);
            }
        })?;
        tokio::select! {
            _ = interrupts.recv() => break,
            _ = terminations.recv() => break,
            _ = resizes.recv() => {}
            pressed = keys.pressed() => match pressed? {
                Some(pressed) => pressed.into_iter().for_each(|key| view.take(key)),
                // The terminal has gone.
                None => break,
            },
            looked = &mut looking => {
                looking.set(look_after(session, args.interval));
                scene.renew(looked);
            }
        }
    }
    terminal.show_cursor()
}

async fn look_after(session: &Session, interval: Duration) -> Result<Scene, Error> {
    tokio::time::sleep(interval.max(INTERVAL_MIN)).await;
    Scene::look(session).await
}
