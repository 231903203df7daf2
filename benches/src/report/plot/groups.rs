//! Groups of bars.

use plotters::element::Rectangle;
use plotters::style::{Color, RGBColor, WHITE};

use super::super::number::short;
use super::super::statistics::Spread;
use super::axis::Axis;
use super::frame::{Field, Frame};
use super::looks::Looks;
use super::shapes::{TEXT, above, below, font, upwards, whisker, width, wrapped};
use super::{Area, Drawn, Group, WIDTH};

const LABEL: f64 = 13.0;
const LINE: i32 = 17;
const VALUE: f64 = 11.0;
/// The part of a group's width that its bars take.
const FILLED: f64 = 0.86;
/// A single wide bar would look like more than it is.
const WIDEST: f64 = 64.0;

pub(super) fn draw(area: &Area<'_>, frame: &Frame<'_>, groups: &[Group], looks: &Looks) -> Drawn {
    let values = groups.iter().flat_map(|group| &group.bars).flat_map(|bar| {
        let tail = bar.tail.map(|tail| tail.high);
        [bar.figure.low, bar.figure.high].into_iter().chain(tail)
    });
    let letters = f64::from(WIDTH - 80) / groups.len().max(1) as f64 / LABEL / 0.56;
    let labels: Vec<_> = groups.iter().map(|group| wrapped(&group.label, letters as usize)).collect();
    let lines = labels.iter().map(Vec::len).max().unwrap_or(0) as i32;
    let (x, y) = (Axis::positions(groups.len()), Axis::measured(values, 0.14));
    let field = frame.field(area, x, y, 10 + lines * LINE)?;
    for (index, (group, label)) in groups.iter().zip(&labels).enumerate() {
        for (row, line) in label.iter().enumerate() {
            let (x, y) = at(&field, index as f64, bottom(&field));
            area.draw_text(line, &below(&font(LABEL)), (x, y + 8 + row as i32 * LINE))?;
        }
        bars(area, &field, index, group, looks)?;
    }
    Ok(())
}

fn bars(area: &Area<'_>, field: &Field<'_>, index: usize, group: &Group, looks: &Looks) -> Drawn {
    let mut bars: Vec<_> = group.bars.iter().collect();
    bars.sort_by_key(|bar| looks.position(&bar.contender));
    let (middle, floor) = at(field, index as f64, bottom(field));
    let room = f64::from(at(field, 0.5, 0.0).0 - at(field, -0.5, 0.0).0);
    let step = (room * FILLED / bars.len() as f64).min(WIDEST);
    let values = bars.iter().map(|bar| short(bar.tail.unwrap_or(bar.figure).median));
    let widest = values.map(|text| width(&text, VALUE)).max().unwrap_or(0);
    for (place, bar) in bars.iter().enumerate() {
        let left = f64::from(middle) + step * (place as f64 - bars.len() as f64 / 2.0);
        // A pixel between two bars.
        let (left, right) = (left.round() as i32, (left + step).round() as i32 - 1);
        let colour = looks.of(&bar.contender).colour;
        let column = |spread: Spread, colour: RGBColor| -> Drawn {
            let top = at(field, 0.0, spread.median).1;
            area.draw(&Rectangle::new([(left, top), (right, floor)], colour.filled()))?;
            let ends = (at(field, 0.0, spread.low).1, at(field, 0.0, spread.high).1);
            let half = ((right - left) / 4).clamp(1, 4);
            match ends.0 - ends.1 > 1 {
                true => whisker(area, i32::midpoint(left, right), ends, half, TEXT),
                false => Ok(()),
            }
        };
        if let Some(tail) = bar.tail {
            column(tail, lighter(colour))?;
        }
        column(bar.figure, colour)?;
        let highest = bar.tail.unwrap_or(bar.figure);
        let top = at(field, 0.0, highest.high).1 - 4;
        let text = short(highest.median);
        let x = i32::midpoint(left, right);
        let style = font(VALUE);
        if f64::from(widest) < step {
            area.draw_text(&text, &above(&style), (x, top))?;
        } else if step >= VALUE {
            area.draw_text(&text, &upwards(&style), (x, top))?;
        }
    }
    Ok(())
}

fn at(field: &Field<'_>, x: f64, y: f64) -> (i32, i32) {
    field.backend_coord(&(x, y))
}

fn bottom(field: &Field<'_>) -> f64 {
    field.y_range().start
}

fn lighter(colour: RGBColor) -> RGBColor {
    let mix = |of: u8, with: u8| ((u16::from(of) * 2 + u16::from(with) * 3) / 5) as u8;
    RGBColor(mix(colour.0, WHITE.0), mix(colour.1, WHITE.1), mix(colour.2, WHITE.2))
}
