//! Plots as SVG, on white, so that they read in light and in dark surroundings.

use std::error::Error;

use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::prelude::SVGBackend;
use plotters::style::WHITE;

use super::statistics::Spread;

mod axis;
mod frame;
mod groups;
mod lines;
mod looks;
mod shapes;

pub(crate) use looks::Looks;

const WIDTH: u32 = 800;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// What a plot shows.
#[derive(Debug)]
pub(crate) struct Plot {
    pub(crate) title: String,
    /// What is measured, with its unit.
    pub(crate) caption: String,
    /// What the horizontal axis has.
    pub(crate) x: String,
    pub(crate) body: Body,
}

#[derive(Debug)]
pub(crate) enum Body {
    Groups(Vec<Group>),
    Lines(Vec<Line>),
}

/// Bars beside each other.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) label: String,
    pub(crate) bars: Vec<Bar>,
}

#[derive(Debug)]
pub(crate) struct Bar {
    pub(crate) contender: String,
    pub(crate) figure: Spread,
    /// A second figure, which is higher and drawn lighter.
    pub(crate) tail: Option<Spread>,
}

#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) contender: String,
    pub(crate) points: Vec<(f64, Spread)>,
}

impl Plot {
    pub(crate) fn svg(&self, looks: &Looks) -> Drawn<String> {
        let frame = frame::Frame::new(self, looks);
        let mut text = String::new();
        {
            let area = SVGBackend::with_string(&mut text, (WIDTH, frame.height())).into_drawing_area();
            area.fill(&WHITE)?;
            frame.draw(&area)?;
            match &self.body {
                Body::Groups(groups) => groups::draw(&area, &frame, groups, looks)?,
                Body::Lines(lines) => lines::draw(&area, &frame, lines, looks)?,
            }
            frame::name_axis(&area, &self.x)?;
            area.present()?;
        }
        Ok(text)
    }
}
