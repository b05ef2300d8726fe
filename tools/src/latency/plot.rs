//! The percentile curve as one HTML file that needs no network: inline SVG, inline style, no library.
//!
//! The horizontal axis gives each further nine the same width, because that is where latency problems live; the
//! vertical axis is logarithmic, so that one outlier does not press the rest of the curve flat.

#![forbid(unsafe_code)]
#![expect(
    clippy::disallowed_methods,
    reason = "the last bit of a logarithm moves nothing in a picture"
)]

use std::fmt::Write;

use super::{Latencies, micros};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 44.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 52.0;
const STEPS_PER_HALVING: u32 = 8;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2733;--soft:#6b7a89;--grid:#dde4ea;--line:#0b6bcb;--fill:#0b6bcb22;--page:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#93a1ae;--grid:#2b3640;--line:#58a6ff;--fill:#58a6ff22;--page:#0f1419}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:1000px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.3rem;margin:0}p{color:var(--soft);margin:.2rem 0 1rem}
svg{width:100%;height:auto}svg text{fill:var(--soft);font-size:12px}
.grid{stroke:var(--grid);stroke-width:1}.curve{fill:none;stroke:var(--line);stroke-width:2.2;stroke-linejoin:round}
.area{fill:var(--fill)}.mark{fill:var(--line)}.cross{stroke:var(--soft);stroke-dasharray:3 3}.hover{font-weight:600}
table{border-collapse:collapse;margin-top:1rem}th{text-align:right;color:var(--soft);font-weight:500}
th,td{padding:.2rem 1.2rem .2rem 0}td{text-align:right;font-variant-numeric:tabular-nums}
";

/// Shows the figures of the point nearest to the pointer.
const SCRIPT: &str = "\
const svg=document.querySelector('svg'),marks=[...svg.querySelectorAll('[data-p]')],\
cross=svg.querySelector('.cross'),label=svg.querySelector('.hover');
svg.addEventListener('pointermove',e=>{const m=svg.getScreenCTM();if(!m||!marks.length)return;\
const x=new DOMPoint(e.clientX,e.clientY).matrixTransform(m.inverse()).x;\
let best=marks[0];for(const k of marks)if(Math.abs(k.cx.baseVal.value-x)<Math.abs(best.cx.baseVal.value-x))best=k;\
const cx=best.cx.baseVal.value;cross.setAttribute('x1',cx);cross.setAttribute('x2',cx);cross.style.display='inline';\
label.textContent=best.dataset.p+'  '+best.dataset.v;label.setAttribute('x',cx>700?cx-8:cx+8);\
label.setAttribute('text-anchor',cx>700?'end':'start')});
svg.addEventListener('pointerleave',()=>{cross.style.display='none';label.textContent=''});
";

/// A page with the curve and the figures; `title` and `subtitle` say what was measured.
pub(crate) fn render(latencies: &Latencies, title: &str, subtitle: &str) -> String {
    let chart = Chart::new(latencies);
    let mut rows = format!("<tr><th>count</th><td>{}</td></tr>", latencies.count());
    for (name, _, nanos) in latencies.figures() {
        // Writing to a string does not fail, here and below.
        let _ = write!(rows, "<tr><th>{name}</th><td>{:.3} us</td></tr>", micros(nanos));
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n<style>\n{STYLE}</style></head>\n\
         <body><h1>{title}</h1><p>{subtitle}</p>\n{svg}\n<table>{rows}</table>\n<script>\n{SCRIPT}</script></body></html>\n",
        title = escape(title),
        subtitle = escape(subtitle),
        svg = chart.svg(),
    )
}

struct Point {
    quantile: f64,
    micros: f64,
}

struct Chart {
    points: Vec<Point>,
    /// Nines on the horizontal axis.
    nines: f64,
    /// Base 10 logarithms of the lowest and highest value on the vertical axis.
    low: f64,
    high: f64,
}

impl Chart {
    fn new(latencies: &Latencies) -> Chart {
        let histogram = latencies.histogram();
        let count = latencies.count().max(1);
        #[expect(
            clippy::cast_precision_loss,
            reason = "only the position of a point depends on it"
        )]
        let nines = (count as f64).log10().ceil().max(1.0);
        // The last step is 100 %, which lies at infinity; it is drawn where the last sample stands.
        let end = 1.0 - 10f64.powf(-nines);
        let mut points: Vec<Point> = histogram
            .iter_quantiles(STEPS_PER_HALVING)
            .map(|step| Point {
                quantile: step.quantile_iterated_to().min(end),
                micros: micros(step.value_iterated_to()),
            })
            .collect();
        points.dedup_by(|next, previous| {
            let same = next.quantile <= previous.quantile;
            if same {
                previous.micros = previous.micros.max(next.micros);
            }
            same
        });
        let smallest = points.first().map_or(1.0, |point| point.micros).max(0.001);
        let largest = points.last().map_or(1.0, |point| point.micros).max(smallest);
        Chart {
            points,
            nines,
            low: (smallest * 0.8).log10(),
            high: (largest * 1.3).log10(),
        }
    }

    fn x(&self, quantile: f64) -> f64 {
        let nines = -(1.0 - quantile).log10();
        LEFT + (WIDTH - LEFT - RIGHT) * nines / self.nines
    }

    fn y(&self, micros: f64) -> f64 {
        let share = (micros.max(0.001).log10() - self.low) / (self.high - self.low);
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share
    }

    fn svg(&self) -> String {
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"latency by percentile\">"
        );
        self.draw_axes(&mut svg);
        self.draw_curve(&mut svg);
        let _ = write!(
            svg,
            "<line class=\"cross\" y1=\"{TOP}\" y2=\"{}\" style=\"display:none\"/><text class=\"hover\" y=\"{}\"></text></svg>",
            HEIGHT - BOTTOM,
            TOP + 14.0,
        );
        svg
    }

    fn draw_axes(&self, svg: &mut String) {
        let floor = HEIGHT - BOTTOM;
        for (name, quantile) in self.percentile_ticks() {
            let x = self.x(quantile);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{floor}\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>",
                floor + 18.0,
            );
        }
        for value in self.value_ticks() {
            let y = self.y(value);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0,
                value_name(value),
            );
        }
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">percentile</text>",
            f64::midpoint(LEFT, WIDTH - RIGHT),
            HEIGHT - 10.0,
        );
    }

    fn draw_curve(&self, svg: &mut String) {
        let mut path = String::new();
        let mut marks = String::new();
        for (index, point) in self.points.iter().enumerate() {
            let (x, y) = (self.x(point.quantile), self.y(point.micros));
            let _ = write!(path, "{}{x:.1} {y:.1}", if index == 0 { "M" } else { "L" });
            let _ = write!(
                marks,
                "<circle class=\"mark\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"1.6\" data-p=\"{}\" data-v=\"{}\"/>",
                percentile_name(point.quantile),
                value_name(point.micros),
            );
        }
        if let (Some(first), Some(last)) = (self.points.first(), self.points.last()) {
            let floor = HEIGHT - BOTTOM;
            let (left, right) = (self.x(first.quantile), self.x(last.quantile));
            let _ = write!(
                svg,
                "<path class=\"area\" d=\"{path}L{right:.1} {floor}L{left:.1} {floor}Z\"/>\
                 <path class=\"curve\" d=\"{path}\"/>{marks}",
            );
        }
    }

    fn percentile_ticks(&self) -> Vec<(String, f64)> {
        let mut ticks = vec![("0 %".to_string(), 0.0), ("50 %".to_string(), 0.5)];
        let mut missing = 0.1;
        let mut nines = 1.0;
        while nines <= self.nines {
            ticks.push((percentile_name(1.0 - missing), 1.0 - missing));
            missing /= 10.0;
            nines += 1.0;
        }
        ticks
    }

    /// 1, 2 and 5 times the powers of ten in range; fewer when there would be too many to read.
    fn value_ticks(&self) -> Vec<f64> {
        let mut ticks = Vec::new();
        let steps: &[f64] = if self.high - self.low > 3.5 {
            &[1.0]
        } else {
            &[1.0, 2.0, 5.0]
        };
        let mut power = self.low.floor();
        while power <= self.high {
            for step in steps {
                let value = step * 10f64.powf(power);
                if (self.low..=self.high).contains(&value.log10()) {
                    ticks.push(value);
                }
            }
            power += 1.0;
        }
        ticks
    }
}

fn percentile_name(quantile: f64) -> String {
    let text = format!("{:.7}", quantile * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

fn value_name(micros: f64) -> String {
    let (value, unit) = match micros {
        value if value < 1.0 => (value * 1e3, "ns"),
        value if value < 1e3 => (value, "us"),
        value if value < 1e6 => (value / 1e3, "ms"),
        value => (value / 1e6, "s"),
    };
    let text = format!("{value:.2}");
    format!("{} {unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
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
        for loads in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!page.contains(loads), "{loads}");
        }
        assert_eq!(page.matches("class=\"curve\"").count(), 1);
        for label in [
            ">0 %<",
            ">50 %<",
            ">90 %<",
            ">99 %<",
            ">99.9 %<",
            ">99.99 %<",
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

    #[test]
    fn every_point_lies_inside_the_frame() {
        let chart = Chart::new(&one_to(5_000));
        for point in &chart.points {
            let (x, y) = (chart.x(point.quantile), chart.y(point.micros));
            assert!((LEFT..=WIDTH - RIGHT + 0.1).contains(&x), "{x}");
            assert!((TOP..=HEIGHT - BOTTOM).contains(&y), "{y}");
        }
    }
}
