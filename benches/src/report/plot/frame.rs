//! What stands above each plot: its title, its unit, and who has which colour.

use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::cartesian::Cartesian2d;
use plotters::element::{PathElement, Rectangle};
use plotters::prelude::SVGBackend;
use plotters::style::Color;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::Axis;
use super::looks::Looks;
use super::shapes::{GRID, QUIET, above, bold, font, marker, width};
use super::{Area, Body, Drawn, Plot, WIDTH};

pub(super) type Field<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<Axis, Axis>>;

const MARGIN: i32 = 16;
const TITLE: f64 = 18.0;
const CAPTION: f64 = 13.0;
const LEGEND: f64 = 13.0;
const LEGEND_TOP: i32 = 62;
const LEGEND_ROW: i32 = 22;
const BODY: i32 = 370;
const AXIS_NAME: i32 = 26;

pub(super) struct Frame<'a> {
    plot: &'a Plot,
    looks: &'a Looks,
    /// Each contender with the corner of its place.
    legend: Vec<(&'a str, (i32, i32))>,
}

impl<'a> Frame<'a> {
    pub(super) fn new(plot: &'a Plot, looks: &'a Looks) -> Frame<'a> {
        let mut contenders: Vec<&str> = match &plot.body {
            Body::Groups(groups) => {
                let bars = groups.iter().flat_map(|group| &group.bars);
                bars.map(|bar| bar.contender.as_str()).collect()
            }
            Body::Lines(lines) => lines.iter().map(|line| line.contender.as_str()).collect(),
        };
        contenders.sort_by_key(|contender| looks.position(contender));
        contenders.dedup();
        let (mut x, mut y) = (MARGIN, LEGEND_TOP);
        let mut legend = Vec::new();
        for contender in contenders {
            let bolder = if looks.of(contender).strong { 8 } else { 0 };
            let length = 26 + bolder + width(contender, LEGEND);
            if x + length > WIDTH as i32 - MARGIN && x > MARGIN {
                (x, y) = (MARGIN, y + LEGEND_ROW);
            }
            legend.push((contender, (x, y)));
            x += length + 14;
        }
        Frame { plot, looks, legend }
    }

    fn bottom(&self) -> i32 {
        self.legend.last().map_or(LEGEND_TOP, |(_, (_, y))| y + LEGEND_ROW) + 4
    }

    pub(super) fn height(&self) -> u32 {
        (self.bottom() + BODY).unsigned_abs()
    }

    pub(super) fn draw(&self, area: &Area<'_>) -> Drawn {
        area.draw_text(&self.plot.title, &bold(TITLE), (MARGIN, 12))?;
        area.draw_text(&self.plot.caption, &font(CAPTION).color(&QUIET), (MARGIN, 37))?;
        for (contender, (x, y)) in &self.legend {
            let look = self.looks.of(contender);
            let middle = y + 7;
            match self.plot.body {
                Body::Groups(_) => {
                    let corners = [(*x, middle - 7), (x + 14, middle + 7)];
                    area.draw(&Rectangle::new(corners, look.colour.filled()))?;
                }
                Body::Lines(_) => {
                    let ends = [(x - 3, middle), (x + 17, middle)];
                    area.draw(&PathElement::new(ends, look.colour.stroke_width(2)))?;
                    marker(area, look.marker, (x + 7, middle), look.colour)?;
                }
            }
            let style = if look.strong { bold(LEGEND) } else { font(LEGEND) };
            area.draw_text(contender, &style, (x + 21, y + 1))?;
        }
        Ok(())
    }

    /// The axes below, with so much space for the ticks of the horizontal one.
    pub(super) fn field<'b>(&self, area: &Area<'b>, x: Axis, y: Axis, space: i32) -> Drawn<Field<'b>> {
        let logarithmic = y.is_logarithmic();
        let mut field = ChartBuilder::on(area)
            .margin_top(self.bottom())
            .margin_bottom(space + if self.plot.x.is_empty() { 0 } else { AXIS_NAME })
            .margin_left(8)
            .margin_right(MARGIN)
            .y_label_area_size(48)
            .build_cartesian_2d(x, y)?;
        let small = font(12.0).color(&QUIET);
        field
            .configure_mesh()
            .disable_x_mesh()
            .disable_x_axis()
            .bold_line_style(GRID)
            .axis_style(GRID)
            .y_label_style(small.clone())
            .draw()?;
        if logarithmic {
            let style = small.pos(Pos::new(HPos::Right, VPos::Top));
            area.draw_text("logarithmic scale", &style, (WIDTH as i32 - MARGIN, 37))?;
        }
        Ok(field)
    }
}

/// The horizontal axis' name, at the foot of the plot.
pub(super) fn name_axis(area: &Area<'_>, name: &str) -> Drawn {
    let (width, height) = area.dim_in_pixel();
    let place = (width.cast_signed() / 2 + 20, height.cast_signed() - 8);
    Ok(area.draw_text(name, &above(&font(13.0).color(&QUIET)), place)?)
}
