//! The two ways that an application is hosted here.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::App;
use crate::support::server::Server;
use crate::support::{apps, venv};

/// The two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hosting {
    /// The command-line server.
    Server,
    /// A layer of an axum app, below a prefix: the example `mounted`.
    Mounted,
}

impl Hosting {
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Hosting::Server => "",
            Hosting::Mounted => "/mounted/here",
        }
    }
}

/// An application that runs.
pub(super) struct Site {
    pub(super) app: App,
    pub(super) hosting: Hosting,
    pub(super) server: Server,
    files: TempDir,
}

impl Site {
    /// Starts the application's `target`, or that inside the validator.
    pub(super) fn start(app: App, target: &str, hosting: Hosting) -> Self {
        let files = tempfile::tempdir().expect("a directory");
        fs::write(files.path().join("download"), download()).expect("a file");
        let dir = apps().join(app.dir);
        if app.admin {
            prepare(&dir, files.path());
        }
        let mut command = match hosting {
            Hosting::Server => {
                let mut command =
                    Command::new(program("COMPAT_SERVER", env!("CARGO_BIN_EXE_tower-wsgi").into()));
                // Only what an operator has to know.
                command.args(["--bind", "127.0.0.1:0", "--log-level", "warn"]);
                command
            }
            Hosting::Mounted => {
                let mut command = Command::new(program("COMPAT_MOUNTED", example("mounted")));
                command.args(["--prefix", hosting.prefix()]).env("ADDR", "127.0.0.1:0");
                command
            }
        };
        command.arg("--venv").arg(venv::venv()).arg("--chdir").arg(&dir);
        // What it speaks is found out.
        command.arg(target);
        environment(&mut command, files.path());
        if app.routes_have_prefix {
            command.env("URL_PREFIX", hosting.prefix());
        }
        let server = Server::start(&mut command);
        Site { app, hosting, server, files }
    }

    /// What the application has written when it stopped.
    pub(super) fn last_words(&self) -> String {
        fs::read_to_string(self.files.path().join("shutdown")).unwrap_or_default()
    }
}

/// What `/download` sends.
pub(super) fn download() -> Vec<u8> {
    super::transfer::pattern(3 << 20)
}

fn environment(command: &mut Command, files: &Path) {
    command
        .env("DATABASE", files.join("database"))
        .env("DOWNLOAD", files.join("download"))
        .env("SHUTDOWN_FILE", files.join("shutdown"))
        // The directories of the applications are under version control.
        .env("PYTHONDONTWRITEBYTECODE", "1");
}

/// Makes Django's database, with somebody who may use the admin.
fn prepare(dir: &Path, files: &Path) {
    let user = ["createsuperuser", "--noinput", "--username", "admin", "--email", "admin@example.org"];
    for arguments in [&["migrate", "--verbosity", "0"][..], &user] {
        let mut command = Command::new(venv::python());
        command.arg("manage.py").args(arguments).current_dir(dir);
        environment(&mut command, files);
        let output = command.env("DJANGO_SUPERUSER_PASSWORD", super::admin::PASSWORD).output();
        let output = output.expect("the interpreter of the virtual environment");
        assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn program(variable: &str, ours: PathBuf) -> OsString {
    std::env::var_os(variable).unwrap_or_else(|| ours.into())
}

/// Examples are beside the directory that this test is in.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this program");
    let profile = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    profile.join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION)
}
