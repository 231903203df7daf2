//! Records that were not measured.

use tower_wsgi_benches::record::Record;

use super::results::Results;

/// Of hello over HTTP/1.1.
pub(crate) fn record(contender: &str, connections: f64, round: u32, figure: f64) -> Record {
    Record {
        suite: "crossing".to_owned(),
        workload: "hello".to_owned(),
        protocol: "HTTP/1.1".to_owned(),
        parameter: "connections".to_owned(),
        value: connections,
        contender: contender.to_owned(),
        metric: "requests per second".to_owned(),
        round,
        figure,
    }
}

pub(crate) fn results(records: Vec<Record>) -> Results {
    let mut results = Results::default();
    records.into_iter().for_each(|record| results.add(record).expect("a record"));
    results
}
