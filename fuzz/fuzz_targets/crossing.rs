//! The target of the library's module `crossing`.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| tower_wsgi_fuzz::crossing::check(data));

#[cfg(not(fuzzing))]
fn main() {
    tower_wsgi_fuzz::check_files(tower_wsgi_fuzz::crossing::check);
}
