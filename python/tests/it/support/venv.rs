//! The virtual environment with the frameworks. It is made once, below the target directory, by the first test that asks; the others,
//! in this process and in others, wait for it.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The interpreter that the crate was linked with: packages with native parts must be for that one.
const PYTHON: &str = env!("TOWER_WSGI_PYTHON");

const REQUIREMENTS: &str = include_str!("../../requirements.txt");

/// Where it is.
///
/// # Panics
///
/// If it cannot be made, with what is missing for it.
pub(crate) fn venv() -> &'static Path {
    static VENV: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    // The problem is kept: to try again in each test would only take its time.
    VENV.get_or_init(make).as_ref().unwrap_or_else(|problem| panic!("{problem}"))
}

/// Its interpreter, for what a test does with an application's own tools.
pub(crate) fn python() -> PathBuf {
    venv().join("bin").join("python")
}

fn make() -> Result<PathBuf, String> {
    let version = run(
        Command::new(PYTHON).args(["-c", "import sys; print(sys.version, sys.base_prefix)"]),
        "the interpreter that this crate was built with does not run",
    )?;
    // Only a name: in a later release of Rust it may be another, and then the environment is made anew.
    let mut name = DefaultHasher::new();
    (REQUIREMENTS, version).hash(&mut name);
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("python-{:016x}", name.finish()));
    let complete = dir.join("complete");

    let io = |what: &str| {
        let what = format!("{what} {}", dir.display());
        move |error: std::io::Error| format!("{what}: {error}")
    };
    fs::create_dir_all(env!("CARGO_TARGET_TMPDIR")).map_err(io("cannot make the directory of"))?;
    let lock = File::create(dir.with_extension("lock")).map_err(io("cannot make the lock of"))?;
    // Given back when it is dropped, and by the system where the process is killed.
    lock.lock().map_err(io("cannot lock"))?;
    if complete.exists() {
        return Ok(dir);
    }
    if dir.exists() {
        // Left half made by a process that was ended.
        fs::remove_dir_all(&dir).map_err(io("cannot remove the half-made"))?;
    }

    run(
        Command::new(PYTHON).args(["-m", "venv"]).arg(&dir),
        "cannot make a virtual environment: it takes the interpreter's `venv` module and pip (on Debian: the package python3-venv)",
    )?;
    let pip = || {
        let mut pip = Command::new(dir.join("bin").join("python"));
        pip.args(["-m", "pip", "--disable-pip-version-check", "--no-input"]);
        pip
    };
    let list = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/requirements.txt");
    run(
        pip().args(["install", "--quiet", "--no-deps", "--requirement", list]),
        "cannot install the frameworks of tests/requirements.txt: it takes a package index that pip can reach (see PIP_INDEX_URL), or \
         wheels that it finds (see PIP_FIND_LINKS)",
    )?;
    run(pip().arg("check"), "tests/requirements.txt does not fit together")?;
    File::create(complete).map_err(io("cannot finish"))?;
    Ok(dir)
}

/// What a program prints; its errors, under a headline, if it fails.
fn run(command: &mut Command, headline: &str) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{headline}\n  {command:?}\n{error}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{headline}\n  {command:?}\n{}\n{stdout}{stderr}", output.status))
}
