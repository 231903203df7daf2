//! Numbers as people read them.

/// For tables: three digits that count, and all of those before the point, in groups.
pub(crate) fn exact(value: f64) -> String {
    grouped(&digits(value))
}

/// For what nobody measured.
pub(crate) fn chosen(value: f64) -> String {
    grouped(&value.to_string())
}

fn grouped(text: &str) -> String {
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(a, b)| (a, Some(b)));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut grouped = sign.to_owned();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    fraction.map_or(grouped.clone(), |fraction| format!("{grouped}.{fraction}"))
}

/// For plots: as short as three digits allow.
pub(crate) fn short(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        size if size >= 999_500.0 => (value / 1e6, "M"),
        size if size >= 999.5 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = digits(scaled);
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 || value == 0.0 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_groups_thousands() {
        assert_eq!([1.0, 0.5, 65_536.0].map(chosen), ["1", "0.5", "65,536"]);
        let of = [0.0, 0.634, 9.999, 54.32, 439.4, 1026.2, 143_257.0, 2_000_000.4];
        let expected = ["0", "0.63", "10.0", "54.3", "439", "1,026", "143,257", "2,000,000"];
        assert_eq!(of.map(exact), expected);
    }

    #[test]
    fn short_has_units() {
        let of = [0.0, 0.5, 1.0, 48.0, 439.4, 999.7, 1026.0, 10_866.0, 143_257.0, 999_900.0, 2_500_000.0];
        let expected = ["0", "0.5", "1", "48", "439", "1k", "1.03k", "10.9k", "143k", "1M", "2.5M"];
        assert_eq!(of.map(short), expected);
    }
}
