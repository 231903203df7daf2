//! Lets the binary, the tests and the examples find the Python library that they were linked with, and tells the crate which interpreter that is.

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    pyo3_build_config::add_libpython_rpath_link_args();
    let config = pyo3_build_config::get();
    // That of an environment would bring the environment's packages along, wherever the program runs later.
    let base =
        config.run_python_script("import sys; print(getattr(sys, '_base_executable', sys.executable))");
    let executable = base.as_deref().ok().map(str::trim).or(config.executable()).unwrap_or_default();
    println!("cargo:rustc-env=TOWER_WSGI_PYTHON={executable}");
}
