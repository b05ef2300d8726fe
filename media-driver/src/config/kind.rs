//! What kinds of values settings have: how the text of each is read, bounded, checked and shown. A number outside its
//! bounds is moved to the nearest bound and the caller gets a note to pass on as a warning; text that is no value, or
//! a number that can not be repaired that way (a length that is no power of two), is an error.

use fulmar::agent::IdleMode;
use fulmar::uri::value::{parse_duration_ns, parse_size, print_duration_ns, print_size};

use super::choice::Choice;
use super::limits::{DURATION_MAX, I32_MAX, I32_MIN, MILLISECOND, SECOND, TEXT_MAX};

/// A value and, if it is not what the text said, why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed<T> {
    /// The value to use.
    pub value: T,
    /// Why it differs from the text.
    pub note: Option<String>,
}

/// How one setting's text becomes a `T` and back. Errors are sentences without the key.
pub trait Kind<T> {
    /// The value that `text` stands for.
    ///
    /// # Errors
    /// The reason why `text` is no value.
    fn parse(&self, text: &str) -> Result<Parsed<T>, String>;

    /// Checks a value that did not come from text.
    ///
    /// # Errors
    /// What is wrong with it.
    fn check(&self, value: &T) -> Result<(), String>;

    /// The value as text that [`Kind::parse`] reads back.
    fn show(&self, value: &T) -> String;

    /// The unit of a bare number, or what sort of text it is.
    fn unit(&self) -> &'static str;

    /// The allowed values, for people.
    fn bounds(&self) -> String;
}

/// True or false, by prefix: `1`, `on`, `true`, `0`, `off`, `false`.
pub struct Bool;

impl Kind<bool> for Bool {
    fn parse(&self, text: &str) -> Result<Parsed<bool>, String> {
        parse_bool(text)
            .map(exactly)
            .ok_or_else(|| "is neither true nor false (1, on, true; 0, off, false)".to_owned())
    }

    fn check(&self, _: &bool) -> Result<(), String> {
        Ok(())
    }

    fn show(&self, value: &bool) -> String {
        value.to_string()
    }

    fn unit(&self) -> &'static str {
        "boolean"
    }

    fn bounds(&self) -> String {
        "true, false".to_owned()
    }
}

/// What a length has to be besides in bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Nothing more.
    Any,
    /// A power of two.
    PowerOfTwo,
    /// A power of two and a trailer of this many bytes.
    PowerOfTwoPlus(i64),
    /// A multiple of this; anything else is refused.
    MultipleOf(i64),
    /// A multiple of this; anything else is rounded up.
    AlignedTo(i64),
    /// 0, or within the bounds.
    ZeroOr,
}

/// A number of bytes, with the suffixes `k`, `m`, `g`.
pub struct Length {
    /// Least value, bytes.
    pub min: i64,
    /// Greatest value, bytes.
    pub max: i64,
    /// What it has to be besides.
    pub shape: Shape,
}

impl Length {
    fn adjust(&self, asked: i64) -> Result<Parsed<i64>, String> {
        if self.shape == Shape::ZeroOr && asked == 0 {
            return Ok(exactly(0));
        }
        let mut value = asked.clamp(self.min, self.max);
        if let Shape::AlignedTo(alignment) = self.shape {
            value = (value + alignment - 1) / alignment * alignment;
        }
        self.check_shape(value)?;
        let note = (value != asked).then(|| {
            format!(
                "{} is not allowed ({}), using {}",
                print_size(asked),
                self.describe(),
                print_size(value)
            )
        });
        Ok(Parsed { value, note })
    }

    fn check_shape(&self, value: i64) -> Result<(), String> {
        match self.shape {
            Shape::Any | Shape::ZeroOr | Shape::AlignedTo(_) => Ok(()),
            Shape::PowerOfTwo => check_power_of_two(value, 0),
            Shape::PowerOfTwoPlus(trailer) => check_power_of_two(value, trailer),
            Shape::MultipleOf(factor) if value % factor == 0 => Ok(()),
            Shape::MultipleOf(factor) => Err(format!("is not a multiple of {factor}")),
        }
    }

    fn describe(&self) -> String {
        let range = if self.max == i64::MAX {
            format!("at least {}", print_size(self.min))
        } else {
            format!("{} to {}", print_size(self.min), print_size(self.max))
        };
        match self.shape {
            Shape::Any => range,
            Shape::PowerOfTwo => format!("power of two, {range}"),
            Shape::PowerOfTwoPlus(trailer) => format!("power of two + {trailer}, {range}"),
            Shape::MultipleOf(factor) => format!("multiple of {factor}, {range}"),
            Shape::AlignedTo(factor) => format!("rounded up to a multiple of {factor}, {range}"),
            Shape::ZeroOr => format!("0, or {range}"),
        }
    }
}

impl<T: Integer> Kind<T> for Length {
    fn parse(&self, text: &str) -> Result<Parsed<T>, String> {
        integer(self.adjust(parse_size(text.trim()).map_err(|fault| fault.to_string())?)?)
    }

    fn check(&self, value: &T) -> Result<(), String> {
        refuse_note(self.adjust(value.widen()?)?)
    }

    fn show(&self, value: &T) -> String {
        value.widen().map_or_else(|_| String::new(), print_size)
    }

    fn unit(&self) -> &'static str {
        "bytes"
    }

    fn bounds(&self) -> String {
        self.describe()
    }
}

/// A period of time, with the suffixes `ns`, `us`, `ms`, `s`, `m`.
pub struct Duration {
    /// Least value, ns.
    pub min: i64,
    /// Greatest value, ns.
    pub max: i64,
    /// What a bare number counts, ns: 1, or a million where the field's tools take milliseconds.
    pub bare: i64,
}

impl Duration {
    /// A duration of at least `min` ns whose bare number counts nanoseconds.
    #[must_use]
    pub const fn at_least(min: i64) -> Self {
        Self {
            min,
            max: DURATION_MAX,
            bare: 1,
        }
    }

    fn adjust(&self, asked: i64) -> Parsed<i64> {
        let value = asked.clamp(self.min, self.max);
        let note = (value != asked).then(|| {
            format!(
                "{} is not allowed ({}), using {}",
                print_duration_ns(asked),
                self.describe(),
                print_duration_ns(value)
            )
        });
        Parsed { value, note }
    }

    fn describe(&self) -> String {
        if self.max == DURATION_MAX {
            format!("at least {}", print_duration_ns(self.min))
        } else {
            format!(
                "{} to {}",
                print_duration_ns(self.min),
                print_duration_ns(self.max)
            )
        }
    }
}

impl Kind<i64> for Duration {
    fn parse(&self, text: &str) -> Result<Parsed<i64>, String> {
        Ok(self.adjust(parse_duration(text, self.bare)?))
    }

    fn check(&self, value: &i64) -> Result<(), String> {
        refuse_note(self.adjust(*value))
    }

    fn show(&self, value: &i64) -> String {
        print_duration_ns(*value)
    }

    fn unit(&self) -> &'static str {
        if self.bare == MILLISECOND {
            "duration, bare number in ms"
        } else {
            "duration, bare number in ns"
        }
    }

    fn bounds(&self) -> String {
        self.describe()
    }
}

/// A value that may be left out: empty text and `unset` mean "not given".
pub struct Unset<K> {
    /// What it is when given.
    pub kind: K,
    /// A further text that means "not given"; `-1` where that is no value of its own.
    pub null: &'static str,
}

impl<T, K: Kind<T>> Kind<Option<T>> for Unset<K> {
    fn parse(&self, text: &str) -> Result<Parsed<Option<T>>, String> {
        if matches!(text, "" | "unset") || text == self.null {
            return Ok(exactly(None));
        }
        let inner = self.kind.parse(text)?;
        Ok(Parsed {
            value: Some(inner.value),
            note: inner.note,
        })
    }

    fn check(&self, value: &Option<T>) -> Result<(), String> {
        value.as_ref().map_or(Ok(()), |value| self.kind.check(value))
    }

    fn show(&self, value: &Option<T>) -> String {
        value
            .as_ref()
            .map_or_else(|| "unset".to_owned(), |value| self.kind.show(value))
    }

    fn unit(&self) -> &'static str {
        self.kind.unit()
    }

    fn bounds(&self) -> String {
        format!("unset, or {}", self.kind.bounds())
    }
}

/// A plain number.
pub struct Number {
    /// Least value.
    pub min: i64,
    /// Greatest value.
    pub max: i64,
    /// What it counts.
    pub unit: &'static str,
}

impl Number {
    fn adjust(&self, asked: i64) -> Parsed<i64> {
        let value = asked.clamp(self.min, self.max);
        let note = (value != asked).then(|| {
            format!(
                "{asked} is not within {} to {}, using {value}",
                self.min, self.max
            )
        });
        Parsed { value, note }
    }
}

impl<T: Integer> Kind<T> for Number {
    fn parse(&self, text: &str) -> Result<Parsed<T>, String> {
        let asked = text
            .trim()
            .parse()
            .map_err(|_| "is not a whole number".to_owned())?;
        integer(self.adjust(asked))
    }

    fn check(&self, value: &T) -> Result<(), String> {
        refuse_note(self.adjust(value.widen()?))
    }

    fn show(&self, value: &T) -> String {
        value
            .widen()
            .map_or_else(|_| String::new(), |value| value.to_string())
    }

    fn unit(&self) -> &'static str {
        self.unit
    }

    fn bounds(&self) -> String {
        match (self.min, self.max) {
            (i64::MIN, i64::MAX) => "any 64-bit number".to_owned(),
            (I32_MIN, I32_MAX) => "any 32-bit number".to_owned(),
            (min, max) if max >= I32_MAX && min > i64::MIN => format!("at least {min}"),
            (min, max) => format!("{min} to {max}"),
        }
    }
}

/// One of a fixed list of names.
pub struct Name;

impl<C: Choice> Kind<C> for Name {
    fn parse(&self, text: &str) -> Result<Parsed<C>, String> {
        C::from_name(text)
            .map(exactly)
            .ok_or_else(|| format!("is none of {}", Kind::<C>::bounds(self)))
    }

    fn check(&self, _: &C) -> Result<(), String> {
        Ok(())
    }

    fn show(&self, value: &C) -> String {
        value.name().to_owned()
    }

    fn unit(&self) -> &'static str {
        "name"
    }

    fn bounds(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for (_, value) in C::NAMES {
            if !names.contains(&value.name()) {
                names.push(value.name());
            }
        }
        names.join(", ")
    }
}

/// How a thread idles.
pub struct Idle;

impl Kind<IdleMode> for Idle {
    fn parse(&self, text: &str) -> Result<Parsed<IdleMode>, String> {
        let value = text
            .parse()
            .map_err(|_| format!("is none of {}", self.bounds()))?;
        self.check(&value)?;
        Ok(exactly(value))
    }

    fn check(&self, value: &IdleMode) -> Result<(), String> {
        match value {
            IdleMode::Sleep(nanos) if !(1..=SECOND as u64).contains(nanos) => {
                Err("sleeps for less than 1ns or more than 1s".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn show(&self, value: &IdleMode) -> String {
        value.to_string()
    }

    fn unit(&self) -> &'static str {
        "name"
    }

    fn bounds(&self) -> String {
        "adaptive, spin, yield, backoff, sleep, sleep:TIME (1ns to 1s), noop".to_owned()
    }
}

/// Any text up to a length, without control characters.
pub struct Text {
    /// Longest text, bytes.
    pub max: usize,
    /// Whether it may be empty.
    pub may_be_empty: bool,
    /// What it holds.
    pub unit: &'static str,
}

impl Text {
    /// Text that may be empty.
    #[must_use]
    pub const fn of(unit: &'static str) -> Self {
        Self {
            max: TEXT_MAX,
            may_be_empty: true,
            unit,
        }
    }
}

impl Kind<String> for Text {
    fn parse(&self, text: &str) -> Result<Parsed<String>, String> {
        let value = text.to_owned();
        self.check(&value)?;
        Ok(exactly(value))
    }

    fn check(&self, value: &String) -> Result<(), String> {
        if value.is_empty() && !self.may_be_empty {
            return Err("is empty".to_owned());
        }
        if value.len() > self.max {
            return Err(format!("is longer than {} bytes", self.max));
        }
        if value.chars().any(char::is_control) {
            return Err("holds a control character".to_owned());
        }
        Ok(())
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }

    fn unit(&self) -> &'static str {
        self.unit
    }

    fn bounds(&self) -> String {
        format!("up to {} bytes", self.max)
    }
}

/// Two ports, `low high`; empty means that the operating system chooses.
pub struct PortRange;

impl Kind<Option<(u16, u16)>> for PortRange {
    fn parse(&self, text: &str) -> Result<Parsed<Option<(u16, u16)>>, String> {
        if text.trim().is_empty() {
            return Ok(exactly(None));
        }
        let reason = || "is not two ports, \"low high\"".to_owned();
        let mut words = text.split_whitespace();
        let (Some(low), Some(high), None) = (words.next(), words.next(), words.next()) else {
            return Err(reason());
        };
        let range = (
            low.parse().map_err(|_| reason())?,
            high.parse().map_err(|_| reason())?,
        );
        self.check(&Some(range))?;
        Ok(exactly(Some(range)))
    }

    fn check(&self, value: &Option<(u16, u16)>) -> Result<(), String> {
        match value {
            Some((0, _)) => Err("starts at port 0".to_owned()),
            Some((low, high)) if low > high => {
                Err(format!("has its low port {low} above its high port {high}"))
            }
            _ => Ok(()),
        }
    }

    fn show(&self, value: &Option<(u16, u16)>) -> String {
        value.map_or_else(String::new, |(low, high)| format!("{low} {high}"))
    }

    fn unit(&self) -> &'static str {
        "two ports"
    }

    fn bounds(&self) -> String {
        "empty (the system chooses), or LOW HIGH from 1 to 65535".to_owned()
    }
}

/// Integers that numeric kinds can produce.
pub trait Integer: Copy {
    /// The value as the widest integer, or why it does not fit.
    ///
    /// # Errors
    /// The value is beyond `i64`.
    fn widen(self) -> Result<i64, String>;

    /// The value from the widest integer, or why it does not fit.
    ///
    /// # Errors
    /// The value is outside `Self`.
    fn narrow(value: i64) -> Result<Self, String>;
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Integer for $type {
            fn widen(self) -> Result<i64, String> {
                i64::try_from(self).map_err(|_| format!("{self} is too large"))
            }

            fn narrow(value: i64) -> Result<Self, String> {
                <$type>::try_from(value).map_err(|_| format!("{value} does not fit"))
            }
        }
    )*};
}

integers!(i32, i64, u32, u64, usize);

/// True or false by prefix; `None` if it is neither.
#[must_use]
pub fn parse_bool(text: &str) -> Option<bool> {
    let text = text.trim().to_ascii_lowercase();
    let starts = |prefixes: [&str; 3]| prefixes.iter().any(|prefix| text.starts_with(prefix));
    if starts(["1", "on", "true"]) {
        Some(true)
    } else if starts(["0", "off", "false"]) {
        Some(false)
    } else {
        None
    }
}

/// Nanoseconds from the text of a duration; a bare number counts `bare` ns.
fn parse_duration(text: &str, bare: i64) -> Result<i64, String> {
    let text = text.trim();
    let nanos = parse_duration_ns(text).map_err(|fault| fault.to_string())?;
    let factor = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        bare
    } else {
        1
    };
    nanos.checked_mul(factor).ok_or_else(|| "is too long".to_owned())
}

fn check_power_of_two(value: i64, trailer: i64) -> Result<(), String> {
    let body = value - trailer;
    if fulmar::bits::is_power_of_two(body) {
        return Ok(());
    }
    let near = u64::try_from(body).ok().and_then(u64::checked_next_power_of_two);
    let near = near
        .and_then(|near| i64::try_from(near).ok())
        .map_or(value, |near| near + trailer);
    let what = if trailer == 0 {
        "a power of two".to_owned()
    } else {
        format!("a power of two + {trailer}")
    };
    Err(format!("is not {what}; the next that is: {near}"))
}

fn exactly<T>(value: T) -> Parsed<T> {
    Parsed { value, note: None }
}

fn integer<T: Integer>(parsed: Parsed<i64>) -> Result<Parsed<T>, String> {
    Ok(Parsed {
        value: T::narrow(parsed.value)?,
        note: parsed.note,
    })
}

fn refuse_note<T>(parsed: Parsed<T>) -> Result<(), String> {
    parsed.note.map_or(Ok(()), Err)
}
