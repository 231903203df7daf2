//! Axes: from zero, or logarithmic where figures are far apart, with ticks that people would choose.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use super::super::number::short;

/// Smaller bars than this part of the highest one cannot be compared any more.
const SMALLEST: f64 = 1.0 / 50.0;

#[derive(Debug, Clone)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    ticks: Vec<f64>,
}

impl Axis {
    /// For what is measured, with so much room above as a part of its length.
    pub(super) fn measured(values: impl Iterator<Item = f64> + Clone, room: f64) -> Axis {
        let highest = values.clone().fold(0.0, f64::max);
        let lowest = values.fold(highest, f64::min);
        if highest <= 0.0 {
            return Axis { low: 0.0, high: 1.0, logarithmic: false, ticks: vec![0.0] };
        }
        if lowest <= 0.0 || lowest / highest >= SMALLEST {
            return Axis::from_zero(highest * (1.0 + room));
        }
        // Half a decade below the lowest, so that its bar is one.
        let low = 10_f64.powf((lowest.log10() * 2.0 - 1.0).floor() / 2.0);
        let high = highest * (highest / low).powf(room);
        let ticks = (-12..=15).map(|power| 10_f64.powi(power));
        let ticks = ticks.filter(|tick| (low..=high).contains(tick)).collect();
        Axis { low, high, logarithmic: true, ticks }
    }

    fn from_zero(high: f64) -> Axis {
        let rough = high / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * power);
        let step = steps.into_iter().find(|step| *step >= rough).unwrap_or(rough);
        let ticks = (0..).map(|index| f64::from(index) * step).take_while(|tick| *tick <= high).collect();
        Axis { low: 0.0, high, logarithmic: false, ticks }
    }

    /// For what was chosen, rising: a tick at each value, and a little room at both ends.
    pub(super) fn chosen(values: &[f64]) -> Axis {
        let (Some(&first), Some(&last)) = (values.first(), values.last()) else {
            return Axis::positions(1);
        };
        let ticks = values.to_vec();
        if first > 0.0 && last / first >= 16.0 {
            let room = (last / first).powf(0.04);
            return Axis { low: first / room, high: last * room, logarithmic: true, ticks };
        }
        let room = if last > first { (last - first) * 0.04 } else { 1.0 };
        Axis { low: first - room, high: last + room, logarithmic: false, ticks }
    }

    /// For so many groups, which are at 0, 1, 2 and so on.
    pub(super) fn positions(count: usize) -> Axis {
        Axis { low: -0.5, high: count as f64 - 0.5, logarithmic: false, ticks: Vec::new() }
    }

    pub(super) fn is_logarithmic(&self) -> bool {
        self.logarithmic
    }

    fn part(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        match self.logarithmic {
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        start + (self.part(*value) * f64::from(end - start)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // There is no second kind of lines between the ticks.
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        short(*value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(values: &[f64]) -> Axis {
        Axis::measured(values.iter().copied(), 0.1)
    }

    #[test]
    fn figures_of_one_size_start_at_zero() {
        let axis = measured(&[143_000.0, 60_000.0]);
        assert!(!axis.is_logarithmic());
        assert_eq!(axis.ticks, [0.0, 50_000.0, 100_000.0, 150_000.0]);
        assert_eq!(axis.map(&0.0, (300, 0)), 300);
        assert_eq!(axis.map(&157_300.0, (300, 0)), 0);
    }

    #[test]
    fn figures_that_are_far_apart_are_logarithmic() {
        let axis = measured(&[439.0, 84_000.0]);
        assert!(axis.is_logarithmic());
        assert_eq!(axis.ticks, [100.0, 1e3, 1e4, 1e5]);
        assert!(axis.low < 439.0 && axis.low > 43.0);
    }

    #[test]
    fn nothing_and_zero_have_an_axis() {
        assert_eq!(measured(&[]).range(), 0.0..1.0);
        assert_eq!(measured(&[0.0, 0.0]).range(), 0.0..1.0);
        assert!(!measured(&[0.0, 1000.0]).is_logarithmic());
        assert!(Axis::chosen(&[3.0]).range().contains(&3.0));
        assert!(!Axis::chosen(&[]).range().is_empty());
    }
}
