//! Colours that can be read: contrast as WCAG 2.2 counts it.

use crate::config::section::Complaint;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Colour([u8; 3]);

/// What the pages are drawn on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ground {
    Light,
    Dark,
}

/// Of text (WCAG 2.2, success criterion 1.4.3).
const LEAST_CONTRAST: f64 = 4.5;

const BLACK: Colour = Colour([0, 0, 0]);
const WHITE: Colour = Colour([255, 255, 255]);
/// Text on a dark page's accent.
const NIGHT: Colour = Colour([0x0c, 0x10, 0x30]);

impl Ground {
    /// Everything in `templates/base.html` that the accent is written on.
    fn colours(self) -> [Colour; 3] {
        match self {
            Ground::Light => [WHITE, Colour([0xf4, 0xf5, 0xf9]), Colour([0xf1, 0xf3, 0xfa])],
            Ground::Dark => [Colour([0x18, 0x1b, 0x26]), Colour([0x0e, 0x10, 0x17]), Colour([0x21, 0x25, 0x35])],
        }
    }

    /// Where the accent goes when the pointer is over it, and what is written on it.
    fn extremes(self) -> (Colour, Colour) {
        match self {
            Ground::Light => (BLACK, WHITE),
            Ground::Dark => (WHITE, NIGHT),
        }
    }
}

impl Colour {
    /// A colour that can be read on the pages, and written on.
    pub(super) fn readable(text: &str, ground: Ground) -> Result<Colour, Complaint> {
        let colour = Colour::parse(text)?;
        let contrast = colour.least_contrast(ground);
        if contrast >= LEAST_CONTRAST {
            return Ok(colour);
        }
        let nearest = colour.nearest_readable(ground).text();
        // Rounded down: 4.5 must not be said of what is less.
        let shown = (contrast * 10.0).floor() / 10.0;
        Err(Complaint::new(
            format!("`{text}` has a contrast of {shown}:1 here, and text needs {LEAST_CONTRAST}:1"),
            format!("the nearest that has it is \"{nearest}\""),
        ))
    }

    fn parse(text: &str) -> Result<Colour, Complaint> {
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6 && digits.is_ascii());
        let byte = |digits: &str, at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
        let colour = digits.and_then(|digits| Some(Colour([byte(digits, 0)?, byte(digits, 2)?, byte(digits, 4)?])));
        colour.ok_or_else(|| {
            Complaint::new(format!("`{text}` is no colour"), "six hexadecimal digits in quotes, as in \"#3849d6\"")
        })
    }

    fn text(self) -> String {
        let [red, green, blue] = self.0;
        format!("#{red:02x}{green:02x}{blue:02x}")
    }

    /// The variables of `templates/base.html`.
    pub(super) fn accent(self, ground: Ground) -> String {
        let (extreme, ink) = ground.extremes();
        let (accent, deep, ink) = (self.text(), self.mixed(extreme, 0.2).text(), ink.text());
        format!("--accent: {accent}; --accent-deep: {deep}; --accent-ink: {ink};")
    }

    fn least_contrast(self, ground: Ground) -> f64 {
        let ink = ground.extremes().1;
        ground.colours().into_iter().chain([ink]).map(|other| self.contrast(other)).fold(f64::INFINITY, f64::min)
    }

    fn nearest_readable(self, ground: Ground) -> Colour {
        let extreme = ground.extremes().0;
        let mut shades = (0..=100).map(|percent| self.mixed(extreme, f64::from(percent) / 100.0));
        shades.find(|shade| shade.least_contrast(ground) >= LEAST_CONTRAST).unwrap_or(extreme)
    }

    fn mixed(self, other: Colour, share: f64) -> Colour {
        let mix = |own: u8, other: u8| (f64::from(own) + (f64::from(other) - f64::from(own)) * share).round() as u8;
        Colour(std::array::from_fn(|channel| mix(self.0[channel], other.0[channel])))
    }

    fn contrast(self, other: Colour) -> f64 {
        let (one, two) = (self.luminance(), other.luminance());
        (one.max(two) + 0.05) / (one.min(two) + 0.05)
    }

    fn luminance(self) -> f64 {
        let linear = |channel: u8| {
            let channel = f64::from(channel) / 255.0;
            if channel <= 0.04045 { channel / 12.92 } else { ((channel + 0.055) / 1.055).powf(2.4) }
        };
        let [red, green, blue] = self.0;
        0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contrast_is_what_wcag_says() {
        let grey = Colour::parse("#767676").unwrap();
        assert!((WHITE.contrast(BLACK) - 21.0).abs() < 1e-9);
        assert!((grey.contrast(WHITE) - 4.54).abs() < 0.01, "the least grey that passes on white");
    }

    #[test]
    fn what_is_built_in_can_be_read() {
        for (text, ground) in [("#3849d6", Ground::Light), ("#8f9dff", Ground::Dark)] {
            assert!(Colour::readable(text, ground).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_colour_that_cannot_be_read_is_refused_with_one_that_can() {
        let rows = [
            ("#ffcc00", Ground::Light, "`#ffcc00` has a contrast of 1.3:1 here, and text needs 4.5:1"),
            ("#202020", Ground::Dark, "`#202020` has a contrast of 1"),
            ("blue", Ground::Light, "`blue` is no colour"),
            ("#12345", Ground::Light, "`#12345` is no colour"),
            ("#12345é", Ground::Light, "`#12345é` is no colour"),
        ];
        for (text, ground, message) in rows {
            let complaint = Colour::readable(text, ground).unwrap_err();
            assert!(complaint.message.starts_with(message), "{text}: {}", complaint.message);
            let help = complaint.help.unwrap();
            if let Some(proposed) = help.strip_prefix("the nearest that has it is ") {
                assert!(Colour::readable(proposed.trim_matches('"'), ground).is_ok(), "{help}");
            }
        }
    }
}
