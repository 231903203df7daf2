//! What plots are made of.

use plotters::element::{Circle, PathElement, Polygon, Rectangle};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontDesc, FontFamily, FontStyle, FontTransform, RGBColor, TextStyle};

use super::looks::Marker;
use super::{Area, Drawn};

pub(super) const TEXT: RGBColor = RGBColor(36, 41, 47);
pub(super) const QUIET: RGBColor = RGBColor(87, 96, 106);
pub(super) const GRID: RGBColor = RGBColor(225, 228, 232);

/// Letters of so many pixels. Plotters would draw smaller ones.
pub(super) fn font(size: f64) -> TextStyle<'static> {
    let font = FontDesc::new(FontFamily::SansSerif, size * 1.24, FontStyle::Normal);
    TextStyle::from(font).color(&TEXT)
}

pub(super) fn bold(size: f64) -> TextStyle<'static> {
    let font = FontDesc::new(FontFamily::SansSerif, size * 1.24, FontStyle::Bold);
    TextStyle::from(font).color(&TEXT)
}

/// Centred above its place.
pub(super) fn above(style: &TextStyle<'static>) -> TextStyle<'static> {
    style.pos(Pos::new(HPos::Center, VPos::Bottom))
}

/// Centred below its place.
pub(super) fn below(style: &TextStyle<'static>) -> TextStyle<'static> {
    style.pos(Pos::new(HPos::Center, VPos::Top))
}

/// Upwards from its place.
pub(super) fn upwards(style: &TextStyle<'static>) -> TextStyle<'static> {
    style.transform(FontTransform::Rotate270).pos(Pos::new(HPos::Left, VPos::Center))
}

/// How wide a text of letters of that size will be, about.
pub(super) fn width(text: &str, size: f64) -> i32 {
    (text.chars().count() as f64 * size * 0.58).ceil() as i32
}

/// The lines of a text that has only so many letters in a line, unless a word is longer.
pub(super) fn wrapped(text: &str, letters: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= letters => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// From the lowest to the highest.
pub(super) fn whisker(
    area: &Area<'_>,
    x: i32,
    (low, high): (i32, i32),
    half: i32,
    colour: RGBColor,
) -> Drawn {
    let style = colour.mix(0.75).stroke_width(1);
    area.draw(&PathElement::new([(x, low), (x, high)], style))?;
    for y in [low, high] {
        area.draw(&PathElement::new([(x - half, y), (x + half, y)], style))?;
    }
    Ok(())
}

pub(super) fn marker(area: &Area<'_>, kind: Marker, (x, y): (i32, i32), colour: RGBColor) -> Drawn {
    let style = colour.filled();
    match kind {
        Marker::Circle => area.draw(&Circle::new((x, y), 5, style))?,
        Marker::Square => area.draw(&Rectangle::new([(x - 4, y - 4), (x + 4, y + 4)], style))?,
        Marker::Up => area.draw(&Polygon::new([(x, y - 6), (x + 5, y + 4), (x - 5, y + 4)], style))?,
        Marker::Down => area.draw(&Polygon::new([(x, y + 6), (x + 5, y - 4), (x - 5, y - 4)], style))?,
        Marker::Diamond => {
            area.draw(&Polygon::new([(x, y - 6), (x + 6, y), (x, y + 6), (x - 6, y)], style))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_between_words() {
        assert_eq!(wrapped("in, from a blocking reader", 12), ["in, from a", "blocking", "reader"]);
        assert_eq!(wrapped("unbreakable", 3), ["unbreakable"]);
        assert!(wrapped("", 3).is_empty());
    }
}
