//! The report of a run, laid out by a real browser where there is one.
//!
//! `tests/report/valid` and `tests/report/stale-read` are small runs that were recorded against real servers; those
//! of the second were broken on purpose, and answered default reads without a barrier. Only every third sample was
//! kept.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use jepsen_style_tests::{Failure, Result, browser};
use serde::Deserialize;
use tempfile::TempDir;

/// A browser on a busy machine.
const BROWSER_LIMIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(20);
/// Virtual time within which a page must have reported its measures, in ms.
const VIRTUAL_MS: u32 = 5_000;
/// The two widths for which a report is made.
const WIDTHS: [u32; 2] = [1_280, 400];
/// A tall window, so that no scroll bar takes width.
const HEIGHT: u32 = 6_000;
/// Colours of the style sheet, light.
const VALID: [u8; 3] = [0x00, 0x69, 0x4f];
const INVALID: [u8; 3] = [0xb0, 0x3a, 0x00];
const LEADER: [u8; 3] = [0x00, 0x72, 0xb2];
const FAULT: [u8; 3] = [0xf3, 0xcf, 0xa8];
const BLAMED: [u8; 3] = [0xc2, 0x4a, 0x00];
const CARD_LIGHT: [u8; 3] = [0xff, 0xff, 0xff];
const CARD_DARK: [u8; 3] = [0x1c, 0x20, 0x24];

/// What the page says of itself, once the browser has laid it out.
const MEASURE: &str = r#"<script>
addEventListener('load', () => {
  const all = (what) => [...document.querySelectorAll(what)];
  const box = (element) => element.getBoundingClientRect();
  const shown = all('.strip, .times').map((strip) =>
    [...strip.querySelectorAll('text')].map(box).filter((place) => place.width > 0));
  const overlapping = shown.flatMap((places) => {
    places.sort((a, b) => a.left - b.left);
    return places.slice(1).filter((place, number) => place.left < places[number].right);
  });
  parent.postMessage({
    title: document.title,
    verdict: document.querySelector('#verdict strong').textContent,
    width: document.documentElement.clientWidth,
    needed: document.documentElement.scrollWidth,
    lanes: all('#lanes .lane').filter((lane) => lane.querySelector('.role')).length,
    bands: all('.plot').map((plot) =>
      [...plot.querySelectorAll('.fault')].filter((band) => box(band).width >= 2).length),
    texts: shown.flat().length,
    overlapping: overlapping.length,
    clients: all('#timeline .client').length,
    operations: all('#timeline .bar').length,
    blamed: all('#timeline .bar.blamed').length,
    fails: all('#timeline .bar.fails').length,
    headings: all('h1, h2').length,
    unnamed: all('svg[role=img]:not([aria-label])').length,
  }, '*');
});
</script>"#;

#[derive(Debug, Deserialize)]
struct Measured {
    title: String,
    verdict: String,
    width: u32,
    needed: u32,
    lanes: usize,
    bands: Vec<usize>,
    texts: usize,
    overlapping: usize,
    clients: usize,
    operations: usize,
    blamed: usize,
    fails: usize,
    headings: usize,
    unnamed: usize,
}

/// A copy of a recorded run that the command line has checked again.
struct Rechecked {
    dir: TempDir,
    code: Option<i32>,
    said: String,
    html: String,
}

fn recheck(fixture: &str) -> Result<Rechecked> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/report").join(fixture);
    let dir = tempfile::tempdir()?;
    for file in fs::read_dir(from)? {
        let file = file?;
        fs::copy(file.path(), dir.path().join(file.file_name()))?;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_jepsen-style-tests"));
    let output = command.arg("recheck").arg(dir.path()).output()?;
    let html = fs::read_to_string(dir.path().join("report.html"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(Rechecked { dir, code: output.status.code(), said, html })
}

#[test]
fn a_valid_run_is_valid_when_it_is_judged_again() {
    let run = recheck("valid").unwrap();
    assert_eq!(run.code, Some(0), "{}", run.said);
    assert!(run.html.contains("Every checker is satisfied."));
    assert!(!run.html.contains("smallest failing window"));
}

#[test]
fn a_violation_is_found_again_and_shown_with_the_reads_that_contradict_it() {
    let run = recheck("stale-read").unwrap();
    assert_eq!(run.code, Some(1), "{}", run.said);
    assert!(run.html.contains("Violations: linearizable."));
    assert!(run.html.contains("The smallest failing window: key 4"));
    assert!(run.html.contains("At 9.057 s key 4 certainly held 35."));
    assert!(run.html.contains("One answer fits nowhere: r 1000027 by client 1 at n2"));
    assert!(run.html.contains("stale-reads-served-as-consistent"));
}

#[test]
fn a_report_is_written_anew() {
    let run = recheck("valid").unwrap();
    let report = run.dir.path().join("report.html");
    fs::write(&report, "old").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_jepsen-style-tests"));
    assert!(command.arg("recheck").arg(run.dir.path()).output().unwrap().status.success());
    assert_eq!(fs::read_to_string(&report).unwrap(), run.html);
}

#[test]
fn a_report_needs_nothing_but_itself_and_says_what_was_proven() {
    for fixture in ["valid", "stale-read"] {
        let html = recheck(fixture).unwrap().html.replace("url(#", "");
        for outside in ["http:", "https:", "src=", "href=", "url(", "@import", "<script", "<link"] {
            assert!(!html.contains(outside), "{fixture}: {outside}");
        }
        assert!(html.contains("its connections open") && html.contains("reaped after SIGKILL"));
    }
}

#[test]
fn what_servers_and_people_wrote_is_text_and_never_markup() {
    let run = recheck("valid").unwrap();
    let faults = run.dir.path().join("faults.jsonl");
    let lines =
        fs::read_to_string(&faults).unwrap().replace("paused n1", "paused <b>n1</b> & \\\"x\\\"");
    let unproven = lines.replace("\"evidence\":\"n1", "\"ignored\":\"n1");
    assert_ne!(unproven, lines);
    fs::write(&faults, unproven).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_jepsen-style-tests"));
    // One fault less is proven, so the run proves too little.
    assert_eq!(command.arg("recheck").arg(run.dir.path()).output().unwrap().status.code(), Some(2));
    let html = fs::read_to_string(run.dir.path().join("report.html")).unwrap();
    assert!(!html.contains("<b>n1") && html.contains("&#60;b&#62;n1"));
    assert!(html.contains("counts for nothing") && html.contains("1 of 2"));
}

#[test]
fn a_browser_shows_verdict_bands_lanes_and_the_failing_window_at_both_widths() {
    let Some(program) = browser::program(
        "a_browser_shows_verdict_bands_lanes_and_the_failing_window_at_both_widths",
    ) else {
        return;
    };
    for (fixture, verdict) in [("valid", "Valid"), ("stale-read", "Invalid")] {
        let run = recheck(fixture).unwrap();
        for width in WIDTHS {
            let seen = measure(&program, &run, width).unwrap();
            let context = format!("{fixture} at {width}: {seen:?}");
            assert_eq!(seen.verdict, verdict, "{context}");
            assert!(seen.title.starts_with(verdict), "{context}");
            assert_eq!(seen.width, width, "{context}");
            assert!(seen.needed <= width, "it overflows: {context}");
            assert_eq!(seen.lanes, 3, "{context}");
            assert_eq!(seen.bands, [2; 6], "two faults in each of six plots: {context}");
            assert!(seen.texts > 20, "{context}");
            assert_eq!(seen.overlapping, 0, "{context}");
            assert!(seen.headings >= 6, "{context}");
            assert_eq!(seen.unnamed, 0, "{context}");
            if verdict == "Invalid" {
                assert!(seen.clients >= 2 && seen.operations >= 2, "{context}");
                assert_eq!((seen.blamed, seen.fails), (1, 1), "{context}");
            } else {
                assert_eq!((seen.clients, seen.operations), (0, 0), "{context}");
            }
        }
    }
}

#[test]
fn the_colours_are_where_the_verdict_and_the_charts_are() {
    let Some(program) = browser::program("the_colours_are_where_the_verdict_and_the_charts_are")
    else {
        return;
    };
    for (fixture, verdict) in [("valid", VALID), ("stale-read", INVALID)] {
        let run = recheck(fixture).unwrap();
        let page = format!("file://{}", run.dir.path().join("report.html").display());
        for (scheme, card) in [(1, CARD_LIGHT), (0, CARD_DARK)] {
            let picture = screenshot(&program, &run, &page, scheme).unwrap();
            assert_eq!(picture.at(3, 3), verdict, "{fixture}: the header");
            assert_eq!(picture.at(1_270, 3), verdict, "{fixture}: the header's other end");
            assert!(picture.count(card) > 100_000, "{fixture}: cards of scheme {scheme}");
            if scheme == 1 {
                assert!(picture.count(LEADER) > 2_000, "{fixture}: leaders");
                assert!(picture.count(FAULT) > 20_000, "{fixture}: bands");
                let blamed = picture.count(BLAMED);
                assert_eq!(blamed > 100, fixture == "stale-read", "{fixture}: {blamed} blamed");
            }
        }
    }
}

/// Runs the browser with a profile of its own until it ends.
fn browse(program: &Path, dir: &Path, flags: &[String]) -> Result<String> {
    let profile = tempfile::tempdir_in(dir)?;
    let said = dir.join("browser.out");
    let mut child = browser::headless(program, profile.path())
        .args(flags)
        .stdout(fs::File::create(&said)?)
        .spawn()?;
    let limit = Instant::now() + BROWSER_LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > limit {
            child.kill()?;
            child.wait()?;
            return Err(Failure::new(format!("the browser was not done after {BROWSER_LIMIT:?}")));
        }
        std::thread::sleep(POLL);
    };
    if !status.success() {
        return Err(Failure::new(format!("the browser ended with {status}")));
    }
    Ok(fs::read_to_string(said)?)
}

/// Lays a copy of the report out in a frame of this width, since a window cannot be as narrow as a telephone,
/// and lets it measure itself.
fn measure(program: &Path, run: &Rechecked, width: u32) -> Result<Measured> {
    let copy = run.html.replace("</body>", &format!("{MEASURE}</body>"));
    fs::write(run.dir.path().join("measured.html"), copy)?;
    let frame = run.dir.path().join("frame.html");
    let listen = "addEventListener('message', (told) => { document.getElementById('told').textContent = JSON.stringify(told.data); })";
    let page = format!(
        "<!DOCTYPE html><body style='margin:0'><pre id='told'></pre><script>{listen}</script><iframe src='measured.html' style='border:0;width:{width}px;height:{HEIGHT}px'></iframe></body>"
    );
    fs::write(&frame, page)?;
    let flags = [
        format!("--window-size={},{HEIGHT}", width + 200),
        format!("--virtual-time-budget={VIRTUAL_MS}"),
        "--dump-dom".to_owned(),
        format!("file://{}", frame.display()),
    ];
    let dom = browse(program, run.dir.path(), &flags)?;
    let told = dom.split_once("<pre id=\"told\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let (told, _) = told.ok_or_else(|| Failure::new(format!("no measures in {dom}")))?;
    serde_json::from_str(told).map_err(|error| Failure::new(format!("{told:?}: {error}")))
}

/// A screenshot's pixels.
struct Picture {
    width: usize,
    samples: usize,
    bytes: Vec<u8>,
}

impl Picture {
    fn read(path: &Path) -> Result<Self> {
        let failed = |error: png::DecodingError| Failure::new(error.to_string());
        let file = std::io::BufReader::new(fs::File::open(path)?);
        let mut reader = png::Decoder::new(file).read_info().map_err(failed)?;
        let size =
            reader.output_buffer_size().ok_or_else(|| Failure::new("a picture too large"))?;
        let mut bytes = vec![0; size];
        let info = reader.next_frame(&mut bytes).map_err(failed)?;
        let samples = info.color_type.samples();
        assert!(samples >= 3 && info.bit_depth == png::BitDepth::Eight, "{info:?}");
        Ok(Self { width: info.line_size / samples, samples, bytes })
    }

    fn at(&self, x: usize, y: usize) -> [u8; 3] {
        let begin = (y * self.width + x) * self.samples;
        [self.bytes[begin], self.bytes[begin + 1], self.bytes[begin + 2]]
    }

    fn count(&self, colour: [u8; 3]) -> usize {
        self.bytes.chunks_exact(self.samples).filter(|pixel| pixel[..3] == colour).count()
    }
}

/// A picture of the wide page; scheme 0 is dark, 1 is light.
fn screenshot(program: &Path, run: &Rechecked, page: &str, scheme: u8) -> Result<Picture> {
    let file = run.dir.path().join("picture.png");
    let flags = [
        format!("--window-size={},{HEIGHT}", WIDTHS[0]),
        format!("--blink-settings=preferredColorScheme={scheme}"),
        format!("--screenshot={}", file.display()),
        page.to_owned(),
    ];
    browse(program, run.dir.path(), &flags)?;
    Picture::read(&file)
}
