//! What tower-wsgi is fuzzed with: one module a target, each a function of bytes that panics where a promise is broken. The binaries hand them to libFuzzer; the test `replay` runs what was found, on any toolchain.

pub mod boundary;
pub mod cgi_request;
pub mod cgi_response;
pub mod crossing;
mod harness;
pub mod input;
pub mod output;
mod response;
mod script;

/// A target: what is to hold for any bytes.
pub type Target = fn(&[u8]);

/// Checks the files that the command line names, or all in the directories that it names: what a target does that was not built for libFuzzer.
///
/// # Panics
/// If a file cannot be read, or a promise is broken.
pub fn check_files(check: Target) {
    for path in std::env::args_os().skip(1) {
        let count = check_all(path.as_ref(), check);
        println!("{}: {count} files hold", path.display());
    }
}

/// Checks a file, or all of a directory, and counts them. A directory that is not there has none.
///
/// # Panics
/// If a file cannot be read, or a promise is broken.
pub fn check_all(path: &std::path::Path, check: Target) -> usize {
    if let Ok(entries) = std::fs::read_dir(path) {
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        return paths.iter().map(|path| check_all(path, check)).sum();
    }
    if !path.exists() {
        return 0;
    }
    let data = std::fs::read(path).expect("a file");
    let _named = harness::OnPanic(|| eprintln!("while this was checked: {}", path.display()));
    check(&data);
    1
}
