//! Lets the binary, the tests and the examples find the Python library that they were linked with, and tells the crate which interpreter that is.

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    pyo3_build_config::add_libpython_rpath_link_args();
    let executable = pyo3_build_config::get().executable().unwrap_or("python3");
    println!("cargo:rustc-env=TOWER_WSGI_PYTHON={executable}");
}
