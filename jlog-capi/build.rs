//! Gives the shared library the name that programs ask the loader for.

fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libjlog.so.2");
    println!("cargo:rerun-if-changed=build.rs");
}
