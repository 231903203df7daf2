//! The examples, run as they are: each as a process of its own, over real sockets.

mod browser;
mod data;
mod documents;
mod example;
mod hosts;
mod limits;
mod prefork;
mod progress;
mod sides;
mod stacks;
/// Its tests are the example.
#[path = "../../examples/test_router.rs"]
#[expect(dead_code, reason = "it is a program, too")]
mod test_router;

#[test]
fn the_list_names_every_example() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let list = std::fs::read_to_string(dir.join("README.md")).expect("the list");
    for file in std::fs::read_dir(dir).expect("the examples") {
        let name = file.expect("an example").file_name().into_string().expect("text");
        assert!(!name.ends_with(".rs") || list.contains(&format!("]({name})")), "{name} is not listed");
    }
}
