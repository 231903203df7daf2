//! What the documents tell to type.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::example::with;
use crate::cgi::web::installed;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The README's commands for its first example, each as it stands but for the port.
#[test]
fn the_readmes_first_commands_work_as_shown() {
    let Some([curl]) = installed(["curl"]) else { return };
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).expect("a README");
    let commands = readme.split("The first one serves").nth(1).and_then(|rest| rest.split("```").nth(1));
    let commands: Vec<_> = commands
        .expect("a block")
        .lines()
        .filter(|line| line.starts_with("curl "))
        .map(str::to_owned)
        .collect();
    assert!(commands.len() >= 7, "{commands:?}");
    with("quickstart", &[], move |example| {
        for command in &commands {
            let here = command.replace("127.0.0.1:3000", &example.addr.to_string());
            let here = here.replacen("curl ", &format!("'{}' -sS ", curl.display()), 1);
            let output =
                Command::new("sh").args(["-c", &here]).current_dir(ROOT).stdin(Stdio::null()).output();
            let output = output.expect("a shell");
            // A transfer that breaks off, and curl says so.
            let expected = if command.contains("/fail-late") { 18 } else { 0 };
            let told = String::from_utf8_lossy(&output.stdout);
            assert_eq!(
                output.status.code(),
                Some(expected),
                "{command}: {told}{}",
                String::from_utf8_lossy(&output.stderr)
            );
            assert!(!told.is_empty(), "{command}");
            assert_eq!(command.contains("/panic"), told.starts_with("HTTP/1.1 500 "), "{command}: {told}");
        }
    });
}

fn sources(dir: &str, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new(ROOT).join(dir)).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == ending)).collect()
}

/// The name behind a flag.
fn named<'a>(command: &'a str, flag: &str) -> Option<&'a str> {
    let mut words = command.split_whitespace();
    words.find(|word| *word == flag)?;
    words.next().map(|word| word.trim_matches(|c: char| !c.is_alphanumeric() && c != '_' && c != '-'))
}

#[test]
fn commands_name_what_there_is() {
    let manifests: String = ["", "benches", "fuzz", "python", "soak"]
        .map(|dir| fs::read_to_string(Path::new(ROOT).join(dir).join("Cargo.toml")).expect("a manifest"))
        .concat();
    let is_there = |kind: &str, name: &str| manifests.contains(&format!("{kind}\nname = \"{name}\"\n"));
    let is_example = |name: &str| {
        ["examples", "python/examples"].iter().any(|dir| {
            let path = Path::new(ROOT).join(dir).join(name);
            path.is_dir() || path.with_extension("rs").is_file()
        })
    };
    let places = [
        ("", "md"),
        ("docs/guide", "md"),
        ("docs/first-hour", "sh"),
        ("examples", "md"),
        ("examples", "rs"),
        ("python", "md"),
        ("fuzz", "md"),
    ];
    let mut seen = 0;
    for path in places.iter().flat_map(|(dir, ending)| sources(dir, ending)) {
        let text = fs::read_to_string(&path).expect("text");
        for command in text.split("cargo ").skip(1) {
            let command = command.split(['\n', '`', '|', '#']).next().unwrap_or_default();
            for (flag, found) in [
                ("--example", &is_example as &dyn Fn(&str) -> bool),
                ("--bench", &|name| is_there("[[bench]]", name)),
                ("-p", &|name| is_there("[package]", name)),
            ] {
                if let Some(name) = named(command, flag).filter(|name| *name != "NAME") {
                    seen += 1;
                    assert!(found(name), "{}: there is no {name}: cargo {command}", path.display());
                }
            }
        }
    }
    assert!(seen > 60, "{seen} names were found");
}
