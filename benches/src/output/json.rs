//! A report as one JSON document.
#![forbid(unsafe_code)]

use serde_json::{Value, json};

use super::{SHOWN, date, hgrm_name};
use crate::report::{Better, Curve, Goal, MTU, Report, Row, range};
use crate::suite::FULMAR;

/// The document, with a newline at its end. Figures that are not there are `null`; latencies are in nanoseconds.
#[must_use]
pub fn render(report: &Report) -> String {
    format!("{:#}\n", document(report))
}

fn document(report: &Report) -> Value {
    let (host, settings) = (&report.host, &report.settings);
    let (met, missed) = report.goals();
    let failed = report.failed.iter().map(|failed| {
        json!({
            "case": failed.case,
            "side": failed.side,
            "round": failed.round + 1,
            "why": failed.why,
        })
    });
    json!({
        "format": 1,
        "version": env!("CARGO_PKG_VERSION"),
        "started": date::format_utc(report.started.0),
        "host": {
            "processors": host.processors,
            "model": host.model,
            "kernel": host.kernel,
            "governor": host.governor,
            "load": host.load,
        },
        "settings": {
            "filters": settings.filters,
            "term_length": settings.term_length,
            "mtu": MTU,
            "rounds": settings.rounds,
            "smoke": settings.smoke,
            "reference": settings.reference,
        },
        "goals_met": met,
        "goals_missed": missed,
        "rows": report.rows.iter().map(row).collect::<Vec<_>>(),
        "latencies": report.curves.iter().map(curve).collect::<Vec<_>>(),
        "failed": failed.collect::<Vec<_>>(),
        "left_out": report.left_out,
    })
}

fn row(row: &Row) -> Value {
    let sides = row.sides.iter().map(|(side, samples)| {
        let (low, high) = range(samples);
        // What is not finite becomes null.
        json!({
            "side": side,
            "median": row.median(side),
            "low": low,
            "high": high,
            "samples": samples,
            "ratio": if *side == FULMAR { None } else { row.ratio(side) },
        })
    });
    let goals = row.goals.iter().map(|goal| {
        let (against, bound) = match *goal {
            Goal::Against { side, at_least } => (Some(side), ("at_least", at_least)),
            Goal::AtLeast(value) => (None, ("at_least", value)),
            Goal::AtMost(value) => (None, ("at_most", value)),
        };
        // A goal against a side bounds the ratio to it, any other one the figure.
        let mut document = json!({ "against": against, "met": row.is_met(*goal) });
        document[bound.0] = json!(bound.1);
        document
    });
    json!({
        "name": row.name,
        "unit": row.unit,
        "better": match row.better {
            Better::Higher => "higher",
            Better::Lower => "lower",
        },
        "sides": sides.collect::<Vec<_>>(),
        "goals": goals.collect::<Vec<_>>(),
    })
}

fn curve(curve: &Curve) -> Value {
    let histogram = curve.latencies.histogram();
    let mut document = json!({
        "case": curve.case,
        "side": curve.side,
        "unit": "ns",
        "count": histogram.len(),
        "min": histogram.min(),
        "max": histogram.max(),
        "file": hgrm_name(curve),
    });
    for (_, key, share) in SHOWN {
        document[key] = json!(histogram.value_at_quantile(share));
    }
    document
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    #[test]
    fn the_document_holds_all_samples_and_what_follows_from_them() {
        let report = example();
        let text = render(&report);
        let read: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(read, document(&report));
        assert_eq!(read["host"]["model"], report.host.model.as_str());
        assert_eq!(read["settings"]["term_length"], 16 << 20);
        assert_eq!(read["settings"]["reference"], "version=1 <commit>");
        let started = read["started"].as_str().expect("text");
        assert!(started.starts_with("20") && started.ends_with('Z'), "{started}");
        assert_eq!(
            (&read["goals_met"], &read["goals_missed"]),
            (&json!(1), &json!(1))
        );

        let row = &read["rows"][0];
        assert_eq!(row["name"], "ipc/round-trip/<closed> p50");
        assert_eq!((&row["unit"], &row["better"]), (&json!("ns"), &json!("lower")));
        assert_eq!(
            row["sides"][0],
            json!({"side": "fulmar", "median": 200.0, "low": 100.0, "high": 300.0, "samples": [100.0, 300.0, 200.0], "ratio": null})
        );
        assert_eq!(row["sides"][1]["ratio"], 1.5);
        assert_eq!(
            row["sides"][2],
            json!({"side": "bare", "median": null, "low": null, "high": null, "samples": [], "ratio": null})
        );
        assert_eq!(
            row["goals"],
            json!([
                {"against": "reference", "at_least": 1.25, "met": true},
                {"against": null, "at_most": 150.0, "met": false},
                {"against": "bare", "at_least": 0.9, "met": null},
            ])
        );
        assert_eq!(
            read["failed"],
            json!([{"case": "ipc/round-trip/<closed>", "side": "bare", "round": 2, "why": "no <echo> & more"}])
        );
        assert_eq!(read["left_out"], json!(["not counted: <valgrind>"]));

        let latencies = &read["latencies"][0];
        assert_eq!(latencies["count"], 1000);
        assert_eq!(latencies["unit"], "ns");
        assert_eq!(latencies["file"], "ipc-round-trip--closed--fulmar.hgrm");
        for (key, nanos) in [
            ("min", 1_000),
            ("p50", 500_000),
            ("p99_9", 999_000),
            ("max", 1_000_000),
        ] {
            let value = latencies[key].as_u64().expect("a number");
            assert!(value.abs_diff(nanos) <= nanos / 500, "{key} {value}");
        }
    }
}
