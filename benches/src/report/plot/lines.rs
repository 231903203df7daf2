//! Curves.

use plotters::element::PathElement;
use plotters::style::Color;

use super::super::number::chosen;
use super::axis::Axis;
use super::frame::Frame;
use super::looks::Looks;
use super::shapes::{QUIET, below, font, marker, whisker, width};
use super::{Area, Drawn, Line};

const TICK: f64 = 12.0;

pub(super) fn draw(area: &Area<'_>, frame: &Frame<'_>, lines: &[Line], looks: &Looks) -> Drawn {
    let points = lines.iter().flat_map(|line| &line.points);
    let mut values: Vec<f64> = points.clone().map(|(value, _)| *value).collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    let heights = points.flat_map(|(_, figure)| [figure.low, figure.high]);
    let field = frame.field(area, Axis::chosen(&values), Axis::measured(heights, 0.06), 26)?;

    let floor = field.y_range().start;
    let mut free = i32::MIN;
    for &value in &values {
        let (x, y) = field.backend_coord(&(value, floor));
        area.draw(&PathElement::new([(x, y), (x, y + 5)], QUIET))?;
        let text = chosen(value);
        let half = width(&text, TICK) / 2 + 3;
        // Two that would overlap: the first one stays.
        if x - half >= free {
            area.draw_text(&text, &below(&font(TICK).color(&QUIET)), (x, y + 8))?;
            free = x + half;
        }
    }

    // Ours is drawn last, above all others.
    let mut lines: Vec<_> = lines.iter().collect();
    lines.sort_by_key(|line| (looks.of(&line.contender).strong, looks.position(&line.contender)));
    for line in lines {
        let look = looks.of(&line.contender);
        let mut path = Vec::new();
        for (value, figure) in &line.points {
            let height = |figure| field.backend_coord(&(*value, figure));
            let (x, low) = height(figure.low);
            whisker(area, x, (low, height(figure.high).1), 3, look.colour)?;
            path.push(height(figure.median));
        }
        let stroke = if look.strong { 3 } else { 2 };
        area.draw(&PathElement::new(path.clone(), look.colour.stroke_width(stroke)))?;
        for place in path {
            marker(area, look.marker, place, look.colour)?;
        }
    }
    Ok(())
}
