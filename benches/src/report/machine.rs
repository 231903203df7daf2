//! The machine that the report is written on, which is the one that measured unless somebody moved the records.

use std::fs;
use std::process::Command;

/// Names and values.
pub(super) fn facts() -> Vec<(&'static str, String)> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    vec![
        ("cores", cores.to_string()),
        ("processor", processor().unwrap_or_else(|| std::env::consts::ARCH.to_owned())),
        ("system", said("uname", &["-sr"])),
        ("compiler", said("rustc", &["--version"])),
    ]
}

/// Only Linux has the file.
fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}
