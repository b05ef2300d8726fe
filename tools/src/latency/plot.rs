//! The percentile curve as one HTML file that needs no network: the picture of the benchmarks, for one stream.

#![forbid(unsafe_code)]

use std::fmt::Write;

use fulmar_benches::output::chart::{self, Series};
use fulmar_benches::output::escape;

use super::{Latencies, micros};

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:1000px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.3rem;margin:0}p{color:var(--soft);margin:.2rem 0 1rem}
table{border-collapse:collapse;margin-top:1rem}th{text-align:right;color:var(--soft);font-weight:500}
th,td{padding:.2rem 1.2rem .2rem 0}td{text-align:right;font-variant-numeric:tabular-nums}
";

/// A page with the curve and the figures; `title` and `subtitle` say what was measured.
pub(crate) fn render(latencies: &Latencies, title: &str, subtitle: &str) -> String {
    let series = [Series {
        name: "round trips",
        style: 0,
        histogram: latencies.histogram(),
    }];
    let mut rows = format!("<tr><th>count</th><td>{}</td></tr>", latencies.count());
    for (name, _, nanos) in latencies.figures() {
        // Writing to a string does not fail.
        let _ = write!(rows, "<tr><th>{name}</th><td>{:.3} us</td></tr>", micros(nanos));
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n<style>\n{}{STYLE}</style></head>\n\
         <body><h1>{title}</h1><p>{subtitle}</p>\n{}<table>{rows}</table></body></html>\n",
        chart::STYLE,
        chart::both(&series, "latency by percentile; the table below has its figures"),
        title = escape(title),
        subtitle = escape(subtitle),
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::one_to;
    use super::*;

    #[test]
    fn the_page_needs_no_network_and_shows_the_curve() {
        let page = render(&one_to(10_000), "Round <trip>", "a & b");
        assert!(page.starts_with("<!DOCTYPE html>"));
        assert!(page.contains("Round &lt;trip&gt;") && page.contains("a &amp; b"));
        for loads in ["http:", "https:", "src=", "@import", "url(", "<script"] {
            assert!(!page.contains(loads), "{loads}");
        }
        assert_eq!(page.matches("class=\"curve\"").count(), 2, "one for each width");
        for label in [
            ">0 %<",
            ">50 %<",
            ">99.99 %<",
            "round trips p99.9: 9.99 ms",
            "p99.99",
        ] {
            assert!(page.contains(label), "{label}");
        }
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }

    #[test]
    fn nothing_recorded_or_one_value_still_draw() {
        for latencies in [Latencies::new().unwrap(), one_to(1)] {
            let page = render(&latencies, "t", "s");
            assert!(!page.contains("NaN") && !page.contains(">inf"));
            assert!(page.contains("</svg>"));
        }
    }
}
