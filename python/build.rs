//! Lets the binary, the tests and the examples find the Python library that they were linked with, and tells the crate which interpreter that is.

use std::path::Path;

use pyo3_build_config::InterpreterConfig;

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    pyo3_build_config::add_libpython_rpath_link_args();
    let config = pyo3_build_config::get();
    // That of an environment would bring the environment's packages along, wherever the program runs later.
    let base =
        config.run_python_script("import sys; print(getattr(sys, '_base_executable', sys.executable))");
    let executable = base.as_deref().ok().map(str::trim).or(config.executable()).unwrap_or_default();
    println!("cargo:rustc-env=TOWER_WSGI_PYTHON={executable}");
    if let Some(problem) = missing_library(config) {
        // No error: the library and its documentation are built without.
        println!(
            "cargo:warning={executable} cannot be embedded: {problem}; PYO3_PYTHON names another Python"
        );
    }
}

/// Why programs cannot be linked, if so. The linker's own words for it are many and say nothing.
fn missing_library(config: &InterpreterConfig) -> Option<String> {
    if !config.shared() {
        return Some(
            "it has no shared library, which CPython gets by ./configure --enable-shared".to_owned(),
        );
    }
    let is_linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    let library = Path::new(config.lib_dir()?).join(format!("lib{}.so", config.lib_name()?));
    (is_linux && !library.exists())
        .then(|| format!("there is no {} (on Debian: the package python3-dev)", library.display()))
}
