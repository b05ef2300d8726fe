//! Latency by percentile as inline SVG, all curves in one picture.
//!
//! The horizontal axis gives each further nine the same width, because that is where latency problems live; the
//! vertical axis is logarithmic, so that one outlier does not press the rest of the curves flat.
#![forbid(unsafe_code)]
#![expect(
    clippy::disallowed_methods,
    reason = "the last bit of a logarithm moves nothing in a picture"
)]

use std::fmt::Write;

use hdrhistogram::Histogram;

use super::{SHOWN, escape};

/// A named curve.
pub struct Series<'a> {
    /// What it stands for.
    pub name: &'a str,
    /// Which of the styles of [`STYLE`] it has, 0 to 2.
    pub style: usize,
    /// Latencies in nanoseconds.
    pub histogram: &'a Histogram<u64>,
}

/// The size of a picture in its own units, which are as large as its text is meant for.
#[derive(Clone, Copy)]
pub struct Frame {
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    bottom: f64,
}

impl Frame {
    /// For a desktop.
    pub const WIDE: Frame = Frame {
        width: 960.0,
        height: 400.0,
        left: 70.0,
        right: 30.0,
        bottom: 50.0,
    };
    /// For a phone.
    pub const NARROW: Frame = Frame {
        width: 370.0,
        height: 320.0,
        left: 54.0,
        right: 14.0,
        bottom: 48.0,
    };
}

/// Where the first line of the grid is.
const TOP: f64 = 14.0;
const STEPS_PER_HALVING: u32 = 8;
/// Width of a character of a label, about.
const CHARACTER: f64 = 7.0;

/// The style of pictures and their legends, and the colours of pages. They stand apart in both themes, and on their
/// pages by 4.5 to 1.
pub const STYLE: &str = "\
:root{color-scheme:light dark;--page:#fff;--card:#f4f7f9;--ink:#1c2733;--soft:#5a6875;--grid:#d5dde4;--s0:#0b62bd;--s1:#b34700;--s2:#4f7a28;--met:#1a7037;--missed:#c0202c}
@media(prefers-color-scheme:dark){:root{--page:#0f1419;--card:#182028;--ink:#e6edf3;--soft:#9aa8b5;--grid:#2f3b46;--s0:#6cb2ff;--s1:#ffa05c;--s2:#9ccc65;--met:#5fd07f;--missed:#ff8a8a}}
svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font-size:12px}
.grid{stroke:var(--grid);stroke-width:1}.curve{fill:none;stroke:var(--side);stroke-width:2.2;stroke-linejoin:round}
.mark{fill:var(--page);stroke:var(--side);stroke-width:2}
.s0{--side:var(--s0)}.s1{--side:var(--s1)}.s2{--side:var(--s2)}
.s1 .curve,line.s1{stroke-dasharray:8 4}.s2 .curve,line.s2{stroke-dasharray:2 4}
.narrow{display:none}@media(max-width:680px){.wide{display:none}.narrow{display:block}}
.key{display:inline-block;width:34px;vertical-align:middle;margin-right:.4rem}
";

/// One picture with every series, in both sizes; the width of the page decides which is seen.
#[must_use]
pub fn both(series: &[Series<'_>], label: &str) -> String {
    format!(
        "<div class=\"wide\">{}</div>\n<div class=\"narrow\">{}</div>\n",
        svg(series, Frame::WIDE, label),
        svg(series, Frame::NARROW, label)
    )
}

/// One picture with every series; `label` says what it shows to those who do not see it.
#[must_use]
pub fn svg(series: &[Series<'_>], frame: Frame, label: &str) -> String {
    let chart = Chart::new(series, frame);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">",
        frame.width,
        frame.height,
        escape(label)
    );
    chart.draw_axes(&mut svg);
    for series in series {
        chart.draw_curve(series, &mut svg);
    }
    svg.push_str("</svg>");
    svg
}

/// A piece of a series' line, for legends.
#[must_use]
pub fn key(style: usize) -> String {
    let mark = mark(style, 17.0, 6.0);
    format!(
        "<svg class=\"key\" viewBox=\"0 0 34 12\" aria-hidden=\"true\"><g class=\"s{style}\">\
         <path class=\"curve\" d=\"M0 6L34 6\"/>{mark}</g></svg>"
    )
}

/// A time with the unit that fits it.
#[must_use]
pub fn time(nanos: f64) -> String {
    let (value, unit) = match nanos {
        value if value < 1e3 => (value, "ns"),
        value if value < 1e6 => (value / 1e3, "us"),
        value if value < 1e9 => (value / 1e6, "ms"),
        value => (value / 1e9, "s"),
    };
    let digits = match value {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text} {unit}")
}

struct Chart {
    frame: Frame,
    /// Nines on the horizontal axis.
    nines: f64,
    /// Base 10 logarithms of the lowest and highest nanoseconds on the vertical axis.
    low: f64,
    high: f64,
}

impl Chart {
    fn new(series: &[Series<'_>], frame: Frame) -> Chart {
        let filled = || {
            series
                .iter()
                .map(|series| series.histogram)
                .filter(|all| !all.is_empty())
        };
        let lowest = filled().map(Histogram::min).min().unwrap_or(1).max(1);
        let highest = filled().map(Histogram::max).max().unwrap_or(1).max(lowest);
        let count = filled().map(Histogram::len).max().unwrap_or(1);
        Chart {
            frame,
            nines: float(count).log10().max(1.0),
            low: (float(lowest) * 0.8).log10(),
            high: (float(highest) * 1.3).log10(),
        }
    }

    fn x(&self, quantile: f64) -> f64 {
        let nines = -(1.0 - quantile).log10();
        let width = self.frame.width - self.frame.left - self.frame.right;
        self.frame.left + width * (nines / self.nines).min(1.0)
    }

    fn y(&self, nanos: f64) -> f64 {
        let share = (nanos.max(1.0).log10() - self.low) / (self.high - self.low);
        let floor = self.floor();
        floor - (floor - TOP) * share.clamp(0.0, 1.0)
    }

    fn floor(&self) -> f64 {
        self.frame.height - self.frame.bottom
    }

    fn draw_axes(&self, svg: &mut String) {
        let floor = self.floor();
        let end = self.frame.width - self.frame.right;
        let mut free_from = 0.0;
        for (name, quantile) in self.percentile_ticks() {
            let x = self.x(quantile);
            // Writing to a string does not fail, here and below.
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{floor}\"/>"
            );
            let half = CHARACTER * float(name.len() as u64) / 2.0;
            if x - half >= free_from {
                let _ = write!(
                    svg,
                    "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>",
                    floor + 17.0
                );
                free_from = x + half + CHARACTER;
            }
        }
        for value in self.value_ticks() {
            let y = self.y(value);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{}\" x2=\"{end:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                self.frame.left,
                self.frame.left - 7.0,
                y + 4.0,
                time(value),
            );
        }
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">share of messages that took no longer</text>",
            f64::midpoint(self.frame.left, end),
            self.frame.height - 8.0,
        );
    }

    fn draw_curve(&self, series: &Series<'_>, svg: &mut String) {
        let histogram = series.histogram;
        if histogram.is_empty() {
            return;
        }
        // 100 % lies at infinity; it is drawn where the last sample stands.
        let end = 1.0 - 1.0 / float(histogram.len());
        let mut path = String::new();
        for step in histogram.iter_quantiles(STEPS_PER_HALVING) {
            let x = self.x(step.quantile_iterated_to().min(end));
            let y = self.y(float(step.value_iterated_to()));
            let start = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{start}{x:.1} {y:.1}");
        }
        let _ = write!(
            svg,
            "<g class=\"s{}\"><path class=\"curve\" d=\"{path}\"/>",
            series.style
        );
        let shown = SHOWN.iter().map(|(name, _, share)| (*name, *share));
        for (name, share) in shown.filter(|(_, share)| *share < end).chain([("max", end)]) {
            let nanos = if name == "max" {
                histogram.max()
            } else {
                histogram.value_at_quantile(share)
            };
            let (x, y) = (self.x(share), self.y(float(nanos)));
            let _ = write!(
                svg,
                "<g><title>{} {name}: {}</title>{}</g>",
                escape(series.name),
                time(float(nanos)),
                mark(series.style, x, y),
            );
        }
        svg.push_str("</g>");
    }

    fn percentile_ticks(&self) -> Vec<(String, f64)> {
        let mut ticks = vec![("0 %".to_owned(), 0.0), ("50 %".to_owned(), 0.5)];
        let mut missing = 0.1;
        let mut nines = 1.0;
        while nines <= self.nines {
            let text = format!("{:.7}", (1.0 - missing) * 100.0);
            let text = text.trim_end_matches('0').trim_end_matches('.');
            ticks.push((format!("{text} %"), 1.0 - missing));
            missing /= 10.0;
            nines += 1.0;
        }
        ticks
    }

    /// 1, 2 and 5 times the powers of ten in range; fewer when there would be too many to read.
    fn value_ticks(&self) -> Vec<f64> {
        let steps: &[f64] = if self.high - self.low > 3.0 {
            &[1.0]
        } else {
            &[1.0, 2.0, 5.0]
        };
        let mut ticks = Vec::new();
        let mut power = self.low.floor();
        while power <= self.high {
            let values = steps.iter().map(|step| step * 10f64.powf(power));
            ticks.extend(values.filter(|value| (self.low..=self.high).contains(&value.log10())));
            power += 1.0;
        }
        ticks
    }
}

/// A shape that tells series apart without their colours.
fn mark(style: usize, x: f64, y: f64) -> String {
    match style {
        0 => format!("<circle class=\"mark\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>"),
        1 => format!(
            "<rect class=\"mark\" x=\"{:.1}\" y=\"{:.1}\" width=\"7\" height=\"7\"/>",
            x - 3.5,
            y - 3.5
        ),
        _ => format!(
            "<path class=\"mark\" d=\"M{:.1} {y:.1}L{x:.1} {:.1}L{:.1} {y:.1}L{x:.1} {:.1}Z\"/>",
            x - 4.5,
            y - 4.5,
            x + 4.5,
            y + 4.5
        ),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "only the place of a point depends on it"
)]
fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::super::tests::recorder;
    use super::*;
    use crate::recorder::Recorder;

    fn series<'a>(recorders: &'a [Recorder]) -> Vec<Series<'a>> {
        let series = recorders.iter().enumerate().map(|(style, recorder)| Series {
            name: "a <side>",
            style,
            histogram: recorder.histogram(),
        });
        series.collect()
    }

    /// The numbers of every attribute of this name.
    fn numbers(svg: &str, attribute: &str) -> Vec<f64> {
        let start = format!(" {attribute}=\"");
        let pieces = svg.split(start.as_str()).skip(1);
        let values = pieces.map(|piece| piece.split('"').next().unwrap_or_default());
        values.map(|value| value.parse().expect("a number")).collect()
    }

    #[test]
    fn all_sides_are_in_one_picture_with_their_figures() {
        let recorders = [recorder(1_000), recorder(20_000)];
        for frame in [Frame::WIDE, Frame::NARROW] {
            let svg = svg(&series(&recorders), frame, "a \"label\"");
            assert!(svg.contains("aria-label=\"a &quot;label&quot;\""), "{svg}");
            assert_eq!(svg.matches("class=\"curve\"").count(), 2);
            for text in [
                "<title>a &lt;side&gt; p50: 500 us</title>",
                "<title>a &lt;side&gt; max: 20 ms</title>",
                "<title>a &lt;side&gt; p99.99: 20 ms</title>",
                ">0 %<",
                ">99.99 %<",
                ">1 ms<",
            ] {
                assert!(svg.contains(text), "{text}: {svg}");
            }
            for (attribute, most) in [
                ("cx", frame.width - frame.right),
                ("cy", frame.height - frame.bottom),
            ] {
                let found = numbers(&svg, attribute);
                assert!(found.len() >= 4);
                assert!(
                    found.iter().all(|at| (TOP..=most + 0.1).contains(at)),
                    "{found:?}"
                );
            }
        }
    }

    #[test]
    fn nothing_recorded_and_one_value_still_draw() {
        for count in [0, 1] {
            let recorders = [recorder(count), recorder(0)];
            let svg = svg(&series(&recorders), Frame::WIDE, "");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert!(svg.ends_with("</svg>"));
        }
    }

    #[test]
    fn times_have_three_digits_and_the_unit_that_fits() {
        let texts = [1.0, 190.0, 1_234.0, 87_200.0, 100_000.0, 2_500_000.0, 3e9].map(time);
        assert_eq!(
            texts,
            ["1 ns", "190 ns", "1.23 us", "87.2 us", "100 us", "2.5 ms", "3 s"]
        );
    }
}
