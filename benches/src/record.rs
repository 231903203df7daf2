//! What was measured, one line of JSON for each single measurement: the tables and plots of the report come from these.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// One measurement of one round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// `crossing`, `scale` or `in_place`.
    pub suite: String,
    /// What the server or the call had to do.
    pub workload: String,
    /// `HTTP/1.1`, `HTTP/2`, or nothing.
    pub protocol: String,
    /// What varies: `connections`, `workers`, `send_queue_size`, `chunk`, `cores`, or nothing.
    pub parameter: String,
    /// The parameter's value.
    pub value: f64,
    /// Who did it.
    pub contender: String,
    /// What was measured, with its unit.
    pub metric: String,
    /// Figures of different contenders compare within a round.
    pub round: u32,
    /// The measured value.
    pub figure: f64,
}

/// A file of records that is being written.
#[derive(Debug)]
pub struct Records {
    path: PathBuf,
    file: File,
}

impl Records {
    /// Begins `report/records/NAME.jsonl` below the target directory that this program runs from. An earlier one is
    /// overwritten.
    ///
    /// # Errors
    ///
    /// If the directory or the file cannot be made.
    pub fn create(name: &str) -> io::Result<Records> {
        let directory = directory()?;
        fs::create_dir_all(&directory)?;
        let path = directory.join(name).with_extension("jsonl");
        let file = File::create(&path)?;
        Ok(Records { path, file })
    }

    /// Adds a line, complete in the file when this returns.
    ///
    /// # Errors
    ///
    /// If the line cannot be written.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        self.file.write_all(&line)
    }

    /// Where they are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The records of a file.
///
/// # Errors
///
/// If it cannot be read, or a line is no record; the error names the line.
pub fn read(path: &Path) -> io::Result<Vec<Record>> {
    let lines = BufReader::new(File::open(path)?).lines().enumerate();
    let record = |(index, line): (usize, io::Result<String>)| {
        let error = |error| io::Error::other(format!("line {} is no record: {error}", index + 1));
        serde_json::from_str(&line?).map_err(error)
    };
    lines.map(record).collect()
}

/// Where all records are: `report/records` below the target directory that this program runs from.
///
/// # Errors
///
/// If the program's own path is unknown.
pub fn directory() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    // target/PROFILE/PROGRAM, or target/PROFILE/deps/PROGRAM for benchmarks and tests.
    let profile = program.ancestors().skip(1).find(|directory| !directory.ends_with("deps"));
    let target =
        profile.and_then(Path::parent).ok_or_else(|| io::Error::other("not in a target directory"))?;
    Ok(target.join("report/records"))
}
