//! A report as files: for programs, for plotters and for people.
#![forbid(unsafe_code)]

pub mod chart;
pub mod date;
pub mod hgrm;
pub mod json;
pub mod page;

use std::fs;
use std::io;
use std::path::Path;

use crate::command::Failure;
use crate::report::{Curve, Report};

/// Writes `report.json`, `report.html` and a percentile distribution for each latency curve to `dir`, which exists.
///
/// # Errors
/// What the system says.
pub fn write_all(report: &Report, dir: &Path) -> Result<(), Failure> {
    write(&dir.join("report.json"), &json::render(report))?;
    write(&dir.join("report.html"), &page::render(report))?;
    for curve in &report.curves {
        let text = hgrm::render(curve.latencies.histogram());
        write(&dir.join(hgrm_name(curve)), &text)?;
    }
    Ok(())
}

/// The name of a curve's percentile distribution: case and side, with `-` for what file names should not hold.
#[must_use]
pub fn hgrm_name(curve: &Curve) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    };
    let case: String = curve.case.chars().map(plain).collect();
    format!("{case}-{}.hgrm", curve.side)
}

/// Writes a file.
///
/// # Errors
/// What the system says.
pub fn write(file: &Path, text: &str) -> Result<(), Failure> {
    fs::write(file, text).map_err(|error| not_written(file, &error))
}

/// The failure to write to a path.
pub(crate) fn not_written(path: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!(
        "cannot write to {}: {error}; name a place that takes files",
        path.display()
    ))
}

/// The quantiles that every document shows: the name people read, the key in JSON, and the share.
pub const SHOWN: [(&str, &str, f64); 5] = [
    ("p50", "p50", 0.5),
    ("p90", "p90", 0.9),
    ("p99", "p99", 0.99),
    ("p99.9", "p99_9", 0.999),
    ("p99.99", "p99_99", 0.9999),
];

/// Text for HTML, in elements and in quoted attributes.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::recorder::Recorder;
    use crate::report::{Better, Failed, Goal, Row};
    use crate::suite::{BARE, FULMAR, Options, REFERENCE};

    /// Latencies of 1, 2, ... microseconds.
    pub(crate) fn recorder(count: i64) -> Recorder {
        let mut recorder = Recorder::new();
        for micros in 1..=count {
            recorder.record(micros * 1000);
        }
        recorder
    }

    /// A row that reaches a goal and misses one, a side that failed, and names that are no HTML.
    pub(crate) fn example() -> Report {
        let mut report = Report::new(&Options::default());
        report.settings.reference = Some("version=1 <commit>".to_owned());
        report.host.model = "a <b>\"model\"</b> & more".to_owned();
        report.rows.push(Row {
            name: "ipc/round-trip/<closed> p50".to_owned(),
            unit: "ns",
            better: Better::Lower,
            sides: vec![
                (FULMAR, vec![100.0, 300.0, 200.0]),
                (REFERENCE, vec![300.0, 300.5, 299.5]),
                (BARE, Vec::new()),
            ],
            goals: vec![
                Goal::Against {
                    side: REFERENCE,
                    at_least: 1.25,
                },
                Goal::AtMost(150.0),
                Goal::Against {
                    side: BARE,
                    at_least: 0.9,
                },
            ],
            rounds: 3,
        });
        for (side, count) in [(FULMAR, 1000), (REFERENCE, 20_000)] {
            report.curves.push(Curve {
                case: "ipc/round-trip/<closed>".to_owned(),
                side,
                latencies: recorder(count),
            });
        }
        report.failed.push(Failed {
            case: "ipc/round-trip/<closed>".to_owned(),
            side: BARE,
            round: 1,
            why: "no <echo> & more".to_owned(),
        });
        report.left_out.push("not counted: <valgrind>".to_owned());
        report
    }

    #[test]
    fn file_names_hold_no_separators_and_no_spaces() {
        let curve = Curve {
            case: "ipc/round-trip/100k per second".to_owned(),
            side: FULMAR,
            latencies: Recorder::new(),
        };
        assert_eq!(hgrm_name(&curve), "ipc-round-trip-100k-per-second-fulmar.hgrm");
    }

    #[test]
    fn a_report_becomes_one_file_of_each_kind_and_one_a_curve() {
        let dir = format!("/dev/shm/fulmar-bench-test-{}", std::process::id());
        let dir = Path::new(&dir);
        fs::create_dir_all(dir).expect("made");
        let written = write_all(&example(), dir);
        let mut names: Vec<_> = fs::read_dir(dir)
            .expect("read")
            .map(|entry| entry.expect("read").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        let _ = fs::remove_dir_all(dir);
        assert!(written.is_ok());
        assert_eq!(
            names,
            [
                "ipc-round-trip--closed--fulmar.hgrm",
                "ipc-round-trip--closed--reference.hgrm",
                "report.html",
                "report.json"
            ]
        );
        let failure = write_all(&example(), Path::new("/nowhere")).expect_err("refused");
        assert!(failure.to_string().contains("/nowhere/report.json"), "{failure}");
    }
}
