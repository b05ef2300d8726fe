//! A report as one HTML page that needs nothing else: no script, no font, no network.
#![forbid(unsafe_code)]

use std::fmt::Write;

use super::chart::{self, Series};
use super::{SHOWN, date, escape, hgrm_name};
use crate::recorder::median;
use crate::report::{Curve, Report, Row, range, short};
use crate::suite::{BARE, FULMAR, REFERENCE};
use crate::suites;

const STYLE: &str = "\
*{box-sizing:border-box}body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:1080px;margin:0 auto;padding:1.5rem 1rem 3rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.2rem;margin:2.5rem 0 0}h3{font-size:1rem;margin:0}p{margin:.2rem 0}.soft{color:var(--soft)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;margin:1rem 0}dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.tiles{display:flex;flex-wrap:wrap;gap:.6rem;padding:0;margin:1rem 0;list-style:none}.tiles li{background:var(--card);border-radius:.5rem;padding:.5rem .9rem}.tiles b{font-size:1.3rem;margin-right:.3rem}
.met{color:var(--met)}.missed{color:var(--missed)}.met,.missed{font-weight:600}
.note{border-left:4px solid var(--missed);background:var(--card);padding:.5rem .9rem;margin:1rem 0;overflow-wrap:anywhere}.note ul{margin:.2rem 0;padding-left:1.2rem}
table{border-collapse:collapse;width:100%;margin:.6rem 0 1rem}caption{text-align:left;color:var(--soft)}
th{text-align:left;font-weight:500}thead th{color:var(--soft);font-size:.87rem}th,td{padding:.35rem .8rem .35rem 0;border-bottom:1px solid var(--grid);vertical-align:top}
td{font-variant-numeric:tabular-nums}td small{display:block;color:var(--soft);white-space:nowrap}td span,td b{white-space:nowrap;display:block}tbody th{overflow-wrap:anywhere}
a{color:var(--s0)}figure{margin:1.5rem 0;background:var(--card);border-radius:.6rem;padding:1rem;--page:var(--card)}figure table{margin-bottom:0}
@media(max-width:680px){figure{padding:.7rem}dl{grid-template-columns:1fr}dd{margin-bottom:.4rem}
thead{position:absolute;clip-path:inset(50%);width:1px;height:1px;overflow:hidden}table,tbody,tr,th,td{display:block}
tbody tr{padding:.5rem 0;border-bottom:1px solid var(--grid)}tbody th,td{border:0;padding:.1rem 0}tbody th{font-weight:600}
td{display:grid;grid-template-columns:6.5rem 1fr}td::before{content:attr(data-label);color:var(--soft);grid-row:1/9}td>*{grid-column:2}td:empty{display:none}}
";

/// The page.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>Fulmar benchmarks</title>\n<style>\n{}{STYLE}</style></head>\n<body>\n",
        chart::STYLE
    );
    head(report, &mut page);
    for suite in suites::ALL {
        let is_in = |name: &str| name.split('/').next() == Some(suite.name);
        let rows: Vec<&Row> = report.rows.iter().filter(|row| is_in(&row.name)).collect();
        if rows.is_empty() {
            continue;
        }
        // Writing to a string does not fail, here and below.
        let _ = write!(
            page,
            "<section>\n<h2>{}</h2>\n<p class=\"soft\">{}</p>\n",
            escape(suite.name),
            escape(suite.about)
        );
        table(&rows, &mut page);
        // The sides of a case stand together.
        let cases = report.curves.chunk_by(|one, next| one.case == next.case);
        for curves in cases.filter(|curves| curves.iter().any(|curve| is_in(&curve.case))) {
            figure(curves, &mut page);
        }
        page.push_str("</section>\n");
    }
    page.push_str("</body></html>\n");
    page
}

fn head(report: &Report, page: &mut String) {
    let (host, settings) = (&report.host, &report.settings);
    page.push_str("<h1>Fulmar benchmarks</h1>\n");
    if settings.smoke {
        page.push_str(
            "<p class=\"note\">Smoke run: it shows that everything runs; the figures mean nothing.</p>\n",
        );
    }
    let (met, missed) = report.goals();
    let failed = report.failed.len();
    let _ = writeln!(
        page,
        "<ul class=\"tiles\"><li><b>{}</b>figures</li><li class=\"met\"><b>{met}</b>goals met</li>\
         <li{}><b>{missed}</b>goals missed</li><li{}><b>{failed}</b>runs failed</li></ul>",
        report.rows.len(),
        if missed > 0 { " class=\"missed\"" } else { "" },
        if failed > 0 { " class=\"missed\"" } else { "" },
    );
    page.push_str("<dl>");
    let facts = [
        ("Measured", date::format_utc(report.started.0)),
        ("Version", format!("Fulmar {}", env!("CARGO_PKG_VERSION"))),
        ("Processors", format!("{} x {}", host.processors, host.model)),
        ("Kernel", host.kernel.clone()),
        ("Governor", host.governor.clone()),
        ("Load", format!("{} when it began", host.load)),
        ("Settings", settings.line()),
        (
            "Cases",
            if settings.filters.is_empty() {
                "all".to_owned()
            } else {
                format!("whose names hold {}", settings.filters.join(" or "))
            },
        ),
        (
            "Sides",
            format!(
                "{REFERENCE}: Aeron's C driver and C client on the same settings, else each on its own defaults; {BARE}: the same \
                 without a transport, as the machine does it"
            ),
        ),
    ];
    for (name, value) in facts {
        let _ = write!(page, "<dt>{name}</dt><dd>{}</dd>", escape(&value));
    }
    page.push_str("</dl>\n");
    let failed: Vec<String> = report.failed.iter().map(|failed| failed.line()).collect();
    list("Runs that gave no figure", &failed, page);
    list("Left out", &report.left_out, page);
}

fn list(title: &str, lines: &[String], page: &mut String) {
    if lines.is_empty() {
        return;
    }
    let _ = write!(page, "<div class=\"note\"><h3>{title}</h3><ul>");
    for line in lines {
        let _ = write!(page, "<li>{}</li>", escape(line));
    }
    page.push_str("</ul></div>\n");
}

/// The sides of these rows, in one order for all.
fn sides(rows: &[&Row]) -> Vec<&'static str> {
    let mut sides = Vec::new();
    for (side, _) in rows.iter().flat_map(|row| &row.sides) {
        if !sides.contains(side) {
            sides.push(*side);
        }
    }
    sides
}

/// Cells say what they are, for screens that are too narrow for columns; roles keep it a table there.
fn table(rows: &[&Row], page: &mut String) {
    let sides = sides(rows);
    page.push_str("<table role=\"table\"><thead role=\"rowgroup\"><tr role=\"row\"><th role=\"columnheader\">figure</th>");
    let has_others = sides.len() > 1;
    let has_goals = rows.iter().any(|row| !row.goals.is_empty());
    let labels = sides.iter().copied();
    let labels = labels
        .chain(has_others.then_some("ratio"))
        .chain(has_goals.then_some("goals"));
    for label in labels {
        let _ = write!(page, "<th role=\"columnheader\">{label}</th>");
    }
    page.push_str("</tr></thead>\n<tbody role=\"rowgroup\">\n");
    for row in rows {
        let _ = write!(
            page,
            "<tr role=\"row\"><th role=\"rowheader\" scope=\"row\">{}</th>",
            escape(&row.name)
        );
        for side in &sides {
            cell(side, &figures(row, side), page);
        }
        if has_others {
            let others = row.sides.iter().filter(|(side, _)| *side != FULMAR);
            let ratios: String = others
                .filter_map(|(side, _)| Some((side, row.ratio(side)?)))
                .map(|(side, ratio)| {
                    format!(
                        "<span><b style=\"display:inline\">{ratio:.2}</b> x {}</span>",
                        escape(side)
                    )
                })
                .collect();
            cell("ratio", &ratios, page);
        }
        if has_goals {
            cell("goals", &goals(row), page);
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table>\n");
}

fn cell(label: &str, content: &str, page: &mut String) {
    let _ = write!(
        page,
        "<td role=\"cell\" data-label=\"{}\">{content}</td>",
        escape(label)
    );
}

/// Median and range of a side; nothing if it is not part of the case.
fn figures(row: &Row, side: &str) -> String {
    let Some((_, samples)) = row.sides.iter().find(|(name, _)| *name == side) else {
        return String::new();
    };
    if samples.is_empty() {
        return "<span class=\"missed\">failed</span>".to_owned();
    }
    let (low, high) = range(samples);
    let (low, middle, high) = match row.unit {
        "ns" => (chart::time(low), chart::time(median(samples)), chart::time(high)),
        unit => (
            short(low),
            format!("{} {}", short(median(samples)), escape(unit)),
            short(high),
        ),
    };
    format!("<b>{middle}</b><small>{low} .. {high}</small>")
}

fn goals(row: &Row) -> String {
    let goals = row.goals.iter().map(|goal| {
        let (class, mark, verdict) = match row.is_met(*goal) {
            Some(true) => ("met", "\u{2713}", "met".to_owned()),
            Some(false) => ("missed", "\u{2717}", "missed".to_owned()),
            None => {
                let why = row.too_few(*goal).unwrap_or_else(|| "no figure".to_owned());
                ("soft", "?", why)
            }
        };
        format!(
            "<span class=\"{class}\">{mark} {}: {verdict}</span>",
            escape(&goal.to_string())
        )
    });
    goals.collect()
}

/// The style of a side's curve, the same in every picture.
fn style(side: &str) -> usize {
    match side {
        FULMAR => 0,
        REFERENCE => 1,
        _ => 2,
    }
}

/// The curves of one case.
fn figure(curves: &[Curve], page: &mut String) {
    let Some(case) = curves.first().map(|curve| &curve.case) else {
        return;
    };
    let series = curves.iter().map(|curve| Series {
        name: curve.side,
        style: style(curve.side),
        histogram: curve.latencies.histogram(),
    });
    let series: Vec<Series<'_>> = series.collect();
    let label = format!("latency by percentile of {case}; the table below has its figures");
    let _ = write!(
        page,
        "<figure><figcaption><h3>{}</h3></figcaption>\n{}",
        escape(case),
        chart::both(&series, &label),
    );
    page.push_str(
        "<table role=\"table\"><thead role=\"rowgroup\"><tr role=\"row\"><th role=\"columnheader\">side</th>",
    );
    let names = SHOWN
        .iter()
        .map(|(name, _, _)| *name)
        .chain(["max", "messages", "file"]);
    for name in names {
        let _ = write!(page, "<th role=\"columnheader\">{name}</th>");
    }
    page.push_str("</tr></thead><tbody role=\"rowgroup\">");
    for curve in curves {
        let histogram = curve.latencies.histogram();
        let _ = write!(
            page,
            "<tr role=\"row\"><th role=\"rowheader\" scope=\"row\">{}{}</th>",
            chart::key(style(curve.side)),
            escape(curve.side)
        );
        for (name, _, share) in SHOWN {
            cell(name, &time(histogram.value_at_quantile(share)), page);
        }
        cell("max", &time(histogram.max()), page);
        cell("messages", &format!("<span>{}</span>", histogram.len()), page);
        let file = escape(&hgrm_name(curve));
        cell("file", &format!("<a href=\"{file}\">hgrm</a>"), page);
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table></figure>\n");
}

#[expect(clippy::cast_precision_loss, reason = "three digits are printed")]
fn time(nanos: u64) -> String {
    format!("<span>{}</span>", chart::time(nanos as f64))
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    #[test]
    fn the_page_needs_nothing_else() {
        let page = render(&example());
        for loads in ["http:", "https:", "src=", "@import", "url(", "<script", "<link"] {
            assert!(!page.contains(loads), "{loads}");
        }
        // What it links to lies beside it.
        for target in page.split("href=\"").skip(1) {
            assert!(target.starts_with("ipc-round-trip--closed--"), "{target}");
        }
        assert!(page.starts_with("<!DOCTYPE html>"));
        assert!(!page.contains("NaN"));
    }

    #[test]
    fn text_is_text_and_no_markup() {
        let page = render(&example());
        for text in [
            "2 x a &lt;b&gt;&quot;model&quot;&lt;/b&gt; &amp; more".replace("2 x", ""),
            "no &lt;echo&gt; &amp; more".to_owned(),
            "not counted: &lt;valgrind&gt;".to_owned(),
            "reference: version=1 &lt;commit&gt;".to_owned(),
            "ipc/round-trip/&lt;closed&gt; p50".to_owned(),
        ] {
            assert!(page.contains(&text), "{text}");
        }
        for markup in ["<closed>", "<echo>", "<valgrind>", "<commit>", "<b>\"model\""] {
            assert!(!page.contains(markup), "{markup}");
        }
    }

    #[test]
    fn goals_are_marked_in_words_and_a_side_that_failed_is_named() {
        let page = render(&example());
        for text in [
            "<span class=\"met\">\u{2713} 1.25 x reference: met</span>",
            "<span class=\"missed\">\u{2717} at most 150: missed</span>",
            "<span class=\"soft\">? 0.90 x bare: 0 of 3 rounds</span>",
            "<td role=\"cell\" data-label=\"bare\"><span class=\"missed\">failed</span></td>",
            "<b>200 ns</b><small>100 ns .. 300 ns</small>",
            "<li class=\"missed\"><b>1</b>runs failed</li>",
        ] {
            assert!(page.contains(text), "{text}: {page}");
        }
    }

    #[test]
    fn each_latency_case_has_one_figure_with_every_side() {
        let page = render(&example());
        assert_eq!(page.matches("<figure>").count(), 1);
        let wide = page.split("<div class=\"wide\">").nth(1).expect("a picture");
        let wide = wide.split("</svg>").next().expect("a picture");
        assert_eq!(wide.matches("class=\"curve\"").count(), 2);
        assert!(
            page.contains("data-label=\"p99.9\"><span>999 us</span>"),
            "{page}"
        );
    }

    #[test]
    fn a_report_without_figures_is_a_page_too() {
        let mut report = example();
        report.rows.clear();
        report.curves.clear();
        let page = render(&report);
        assert!(!page.contains("<section>") && page.ends_with("</html>\n"));
    }
}
