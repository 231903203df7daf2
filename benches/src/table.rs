//! Tables.

/// Prints medians with their range, and the median of the ratios to the first column within each round.
pub fn table(title: &str, names: &[&str], columns: &[Vec<f64>]) {
    println!("{title}");
    for (name, column) in names.iter().zip(columns) {
        let ratios = column.iter().zip(&columns[0]).map(|(value, base)| value / base);
        let (low, middle, high) = spread(column.clone());
        let (_, ratio, _) = spread(ratios.collect());
        println!("  {name:<16} {middle:>10.1}  ({low:.1} to {high:.1})  x {ratio:.2}");
    }
}

/// The lowest, the median and the highest.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    // The mean of the two in the middle, which are the same one if their number is odd.
    let median = f64::midpoint(values[last / 2], values[values.len() / 2]);
    (values[0], median, values[last])
}
