//! The directory a driver and its clients meet in when nobody names one (spec 1.1).

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The default driver directory: `/dev/shm/aeron-<user>`, or `<TMPDIR or /tmp>/aeron-<user>` where `/dev/shm` is
/// absent. The user is the environment's `USER`, else the name of the real user id, else `default`. `AERON_DIR` is not
/// looked at: it is a setting like any other.
#[must_use]
pub fn default_directory() -> String {
    let user = std::env::var("USER")
        .ok()
        .filter(|name| !name.is_empty())
        .or_else(user_of_process);
    let base = if Path::new("/dev/shm").is_dir() {
        "/dev/shm".to_owned()
    } else {
        std::env::var("TMPDIR").unwrap_or_else(|_| "/tmp".to_owned())
    };
    directory_name(&base, user.as_deref())
}

fn directory_name(base: &str, user: Option<&str>) -> String {
    format!(
        "{}/aeron-{}",
        base.trim_end_matches('/'),
        user.unwrap_or("default")
    )
}

fn user_of_process() -> Option<String> {
    let uid = std::fs::metadata("/proc/self").ok()?.uid();
    user_in_passwd(&std::fs::read_to_string("/etc/passwd").ok()?, uid)
}

fn user_in_passwd(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let line_uid: u32 = fields.nth(1)?.parse().ok()?;
        (line_uid == uid && !name.is_empty()).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_joins_base_and_user() {
        assert_eq!(directory_name("/dev/shm", Some("ann")), "/dev/shm/aeron-ann");
        assert_eq!(directory_name("/tmp/", None), "/tmp/aeron-default");
        assert!(default_directory().contains("/aeron-"));
    }

    #[test]
    fn the_user_of_an_id_is_found_in_the_passwd_text() {
        let text = "root:x:0:0:root:/root:/bin/sh\nbroken line\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(user_in_passwd(text, 1000).as_deref(), Some("ann"));
        assert_eq!(user_in_passwd(text, 0).as_deref(), Some("root"));
        assert_eq!(user_in_passwd(text, 7), None);
    }
}
