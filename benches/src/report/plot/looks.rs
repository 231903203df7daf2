//! Who has which colour.

use plotters::style::RGBColor;

use super::super::vocabulary::Suite;

/// Vermilion.
const OURS: RGBColor = RGBColor(213, 84, 0);
const OTHERS: [RGBColor; 3] = [RGBColor(243, 166, 99), RGBColor(138, 58, 10), RGBColor(250, 206, 165)];
const BASELINE: RGBColor = RGBColor(125, 125, 125);
const BASELINES: [RGBColor; 2] = [RGBColor(187, 187, 187), RGBColor(80, 80, 80)];
/// Paul Tol's muted scheme without its rose: colour-blind people can tell them apart, and from vermilion.
const RIVALS: [RGBColor; 8] = [
    RGBColor(92, 80, 164),
    RGBColor(136, 204, 238),
    RGBColor(68, 170, 153),
    RGBColor(221, 204, 119),
    RGBColor(170, 68, 153),
    RGBColor(17, 119, 51),
    RGBColor(153, 153, 51),
    RGBColor(136, 34, 85),
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
    OtherBaseline,
    Ours,
    OtherOurs,
    Rival,
}

impl Looks {
    pub(crate) fn new(suite: &Suite, contenders: &[&str]) -> Looks {
        let mut sorted: Vec<_> =
            contenders.iter().map(|contender| (kind(suite, contender), contender)).collect();
        sorted.sort_by_key(|(kind, _)| *kind);
        let mut earlier = [0; 5];
        let mut looks = Vec::new();
        for (kind, contender) in sorted {
            let index = earlier[kind as usize];
            earlier[kind as usize] += 1;
            let (colour, marker) = match kind {
                Kind::Baseline => (BASELINE, Marker::Circle),
                Kind::OtherBaseline => (BASELINES[index % BASELINES.len()], Marker::Circle),
                Kind::Ours => (OURS, Marker::Circle),
                Kind::OtherOurs => (OTHERS[index % OTHERS.len()], Marker::Circle),
                Kind::Rival => (RIVALS[index % RIVALS.len()], MARKERS[index % MARKERS.len()]),
            };
            looks.push(((*contender).to_owned(), Look { colour, marker, strong: kind == Kind::Ours }));
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

/// Variants are named after what they are variants of, as "native, 1 thread".
fn kind(suite: &Suite, contender: &str) -> Kind {
    let (name, variant) = contender.split_once(", ").map_or((contender, false), |(name, _)| (name, true));
    match (name == suite.baseline, name == suite.ours, variant) {
        (true, _, false) => Kind::Baseline,
        (true, _, true) => Kind::OtherBaseline,
        (_, true, false) => Kind::Ours,
        (_, true, true) => Kind::OtherOurs,
        (false, false, _) => Kind::Rival,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::vocabulary::SUITES;
    use super::*;

    #[test]
    fn the_baseline_is_first_and_ours_stands_out() {
        let contenders =
            ["rouille", "WsgiService, 1 thread", "native", "WsgiService", "astra", "native, 1 thread"];
        let looks = Looks::new(&SUITES[0], &contenders);
        let names: Vec<_> = looks.0.iter().map(|(name, _)| name.as_str()).collect();
        let expected =
            ["native", "native, 1 thread", "WsgiService", "WsgiService, 1 thread", "rouille", "astra"];
        assert_eq!(names, expected);
        assert_eq!(looks.of("WsgiService").colour, OURS);
        assert_eq!(contenders.map(|name| looks.of(name).strong), [false, false, false, true, false, false]);
    }
}
