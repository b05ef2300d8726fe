// Shared by the build scripts of the packages that link Aeron's C library under the feature `peer`.
//
// The crate that builds it always asks the linker for libbsd, for one function (arc4random) that current C libraries
// have themselves. Where the linker finds no libbsd, an empty archive of that name satisfies it, so that no package
// has to be installed; where it does, nothing happens.

pub(crate) fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_PEER").is_none() || linker_finds_libbsd() {
        return;
    }
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    std::fs::write(format!("{out}/libbsd.a"), "!<arch>\n").expect("OUT_DIR is writable");
    println!("cargo:rustc-link-search=native={out}");
}

fn linker_finds_libbsd() -> bool {
    let linked = std::process::Command::new("cc")
        .args(["-shared", "-x", "c", "/dev/null", "-lbsd", "-o", "/dev/null"])
        .stderr(std::process::Stdio::null())
        .status();
    linked.is_ok_and(|status| status.success())
}
