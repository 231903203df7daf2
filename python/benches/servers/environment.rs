//! The virtual environment that all servers run from, and the line that says what was measured on what.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const REQUIREMENTS: &str = include_str!("../requirements.txt");
const APPS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/apps");
/// Only the interpreter that our server is linked with makes the comparison fair.
const INTERPRETER: &str = env!("TOWER_WSGI_PYTHON");

const VERSIONS: &str = "
import importlib.metadata, sys
names = ['granian', 'uvicorn', 'uvloop', 'httptools', 'a2wsgi', 'gunicorn', 'flask', 'fastapi']
versions = [name + ' ' + importlib.metadata.version(name) for name in names]
print('Python ' + sys.version.split()[0] + '; ' + ', '.join(versions))
";

/// Where things are.
pub(crate) struct Environment {
    pub(crate) venv: PathBuf,
    pub(crate) apps: &'static Path,
    /// Where the servers' output goes.
    pub(crate) logs: PathBuf,
    versions: String,
}

impl Environment {
    /// Makes the virtual environment, or takes the one that an earlier run has made from the same requirements.
    ///
    /// # Errors
    ///
    /// Says which step failed, with what it printed, and what it needs.
    pub(crate) fn prepare() -> Result<Environment, String> {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("servers");
        let venv = target.join("venv");
        let logs = target.join("logs");
        fs::create_dir_all(&logs).map_err(|error| format!("cannot make {}: {error}", logs.display()))?;
        let stamp = venv.join("made-from.txt");
        let made_from = format!("{INTERPRETER}\n{REQUIREMENTS}");
        if fs::read_to_string(&stamp).ok().as_ref() != Some(&made_from) {
            make(&venv).map_err(|error| {
                format!(
                    "The servers' virtual environment cannot be made:\n{error}\n\
                     It needs {INTERPRETER} with the modules venv and ensurepip, and a package index that pip reaches."
                )
            })?;
            fs::write(&stamp, made_from).map_err(|error| error.to_string())?;
        }
        let versions = output(python(&venv).args(["-c", VERSIONS]))?;
        Ok(Environment { venv, apps: Path::new(APPS), logs, versions: versions.trim().to_owned() })
    }

    pub(crate) fn python(&self) -> PathBuf {
        self.venv.join("bin/python")
    }

    /// The machine and all versions.
    pub(crate) fn machine(&self) -> String {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let ours = env!("CARGO_PKG_VERSION");
        format!("{cores} cores, Linux {}, {}; tower-wsgi {ours}", kernel.trim(), self.versions)
    }
}

fn make(venv: &Path) -> Result<(), String> {
    println!("making {} (once)", venv.display());
    output(Command::new(INTERPRETER).args(["-m", "venv", "--clear"]).arg(venv))?;
    let requirements = venv.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS).map_err(|error| error.to_string())?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    output(python(venv).args(pip).arg(requirements))?;
    Ok(())
}

fn python(venv: &Path) -> Command {
    Command::new(venv.join("bin/python"))
}

/// What the command prints.
fn output(command: &mut Command) -> Result<String, String> {
    let output = command.env_remove("PYTHONPATH").output();
    let output = output.map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        return Err(format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&text)));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("{command:?}: {error}"))
}
