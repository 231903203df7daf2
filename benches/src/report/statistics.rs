//! What rounds come down to.

use std::collections::BTreeMap;

use tower_wsgi_benches::spread;

/// The figure of each round.
pub(crate) type Rounds = BTreeMap<u32, f64>;

/// The lowest, the median and the highest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Spread {
    /// Of nothing there is none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let values: Vec<f64> = values.into_iter().collect();
        if values.is_empty() {
            return None;
        }
        let (low, median, high) = spread(values);
        Some(Spread { low, median, high })
    }
}

/// The median of the ratios within each round that both have.
///
/// What disturbs the machine disturbs a whole round, so it hardly shows in these.
pub(crate) fn ratio(of: &Rounds, to: &Rounds) -> Option<f64> {
    let both = of.iter().filter_map(|(round, figure)| Some((figure, to.get(round)?)));
    let ratios = both.filter(|(_, base)| **base != 0.0).map(|(figure, base)| figure / base);
    Spread::of(ratios).map(|spread| spread.median)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let spread = Spread::of([5.0, 1.0, 2.0]).expect("some");
        assert_eq!(spread, Spread { low: 1.0, median: 2.0, high: 5.0 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 9.0]).expect("some").median, 3.0);
        assert_eq!(Spread::of([7.0]).expect("some").median, 7.0);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine was four times slower in the second round.
        let ours = Rounds::from([(1, 80.0), (2, 22.0), (3, 90.0)]);
        let base = Rounds::from([(1, 100.0), (2, 25.0), (3, 100.0)]);
        assert_eq!(ratio(&ours, &base), Some(0.88));
    }

    #[test]
    fn a_round_that_one_of_them_missed_does_not_count() {
        let ours = Rounds::from([(1, 50.0), (2, 500.0)]);
        let base = Rounds::from([(1, 100.0), (3, 1.0)]);
        assert_eq!(ratio(&ours, &base), Some(0.5));
        assert_eq!(ratio(&ours, &Rounds::from([(4, 1.0)])), None);
        assert_eq!(ratio(&ours, &Rounds::from([(1, 0.0)])), None);
    }
}
