//! Who has which colour, in all plots the same.

use plotters::style::RGBColor;

use super::super::vocabulary::SUITES;

/// Vermilion.
const OURS: RGBColor = RGBColor(213, 84, 0);
const VARIANTS: [RGBColor; 3] = [RGBColor(243, 166, 99), RGBColor(138, 58, 10), RGBColor(250, 206, 165)];
const BASELINE: RGBColor = RGBColor(125, 125, 125);
/// Paul Tol's muted scheme without its reds: colour-blind people can tell them apart, and from vermilion.
const RIVALS: [RGBColor; 7] = [
    RGBColor(92, 80, 164),
    RGBColor(136, 204, 238),
    RGBColor(68, 170, 153),
    RGBColor(221, 204, 119),
    RGBColor(170, 68, 153),
    RGBColor(17, 119, 51),
    RGBColor(153, 153, 51),
];

const MARKERS: [Marker; 4] = [Marker::Square, Marker::Up, Marker::Down, Marker::Diamond];

/// How a contender is drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) colour: RGBColor,
    pub(super) marker: Marker,
    /// Whether it is the one that the report is about.
    pub(super) strong: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Marker {
    Circle,
    Square,
    Up,
    Down,
    Diamond,
}

/// The looks of all contenders, in the order in which they stand beside each other.
#[derive(Debug)]
pub(crate) struct Looks(Vec<(String, Look)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Baseline,
    Ours,
    Variant,
    Rival,
}

impl Looks {
    pub(crate) fn new(contenders: &[String]) -> Looks {
        let mut sorted: Vec<_> = contenders.iter().map(|contender| (kind(contender), contender)).collect();
        sorted.sort_by_key(|(kind, _)| *kind);
        let mut earlier = [0; 4];
        let mut looks = Vec::new();
        for (kind, contender) in sorted {
            let index = earlier[kind as usize];
            earlier[kind as usize] += 1;
            let (colour, marker) = match kind {
                Kind::Baseline => (BASELINE, Marker::Circle),
                Kind::Ours => (OURS, Marker::Circle),
                Kind::Variant => (VARIANTS[index % VARIANTS.len()], Marker::Circle),
                Kind::Rival => (RIVALS[index % RIVALS.len()], MARKERS[index % MARKERS.len()]),
            };
            looks.push((contender.clone(), Look { colour, marker, strong: kind == Kind::Ours }));
        }
        Looks(looks)
    }

    pub(super) fn of(&self, contender: &str) -> Look {
        let look = self.position(contender).and_then(|position| self.0.get(position));
        look.map_or(Look { colour: BASELINE, marker: Marker::Circle, strong: false }, |(_, look)| *look)
    }

    pub(super) fn position(&self, contender: &str) -> Option<usize> {
        self.0.iter().position(|(name, _)| name == contender)
    }
}

fn kind(contender: &str) -> Kind {
    if SUITES.iter().any(|suite| suite.baseline == contender) {
        Kind::Baseline
    } else if SUITES.iter().any(|suite| suite.ours == contender) {
        Kind::Ours
    } else if SUITES.iter().any(|suite| contender.starts_with(suite.ours)) {
        Kind::Variant
    } else {
        Kind::Rival
    }
}
