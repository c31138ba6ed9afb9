//! Whether a folder lies on a file system shared over a network, where SQLite's log must not live: its
//! shared memory and locks hold within one machine only.

use std::io;
use std::path::Path;

/// Magic numbers of `statfs(2)`, as the kernel's `magic.h` and file systems have them.
const SHARED: [(u64, &str); 12] = [
    (0x6969, "nfs"),
    (0x517B, "smb"),
    (0xFE53_4D42, "smb2"),
    (0xFF53_4D42, "cifs"),
    (0x0102_1997, "9p"),
    (0x00C3_6400, "ceph"),
    (0x5346_414F, "afs"),
    (0x6B41_4653, "afs"),
    (0x7375_7245, "coda"),
    (0x564C, "ncp"),
    (0x0BD0_0BD0, "lustre"),
    (0x0116_1970, "gfs2"),
];
const FUSE: u64 = 0x6573_5546;

/// FUSE file systems that are shared; others (a container's overlay, NTFS on a local disk) are not.
const SHARED_FUSE: [&str; 12] = [
    "sshfs",
    "rclone",
    "s3fs",
    "goofys",
    "gcsfuse",
    "glusterfs",
    "davfs",
    "curlftpfs",
    "smbnetfs",
    "cifs",
    "nfs",
    "ceph",
];

/// The name of the network file system `folder` lies on, if it does.
pub(super) fn kind(folder: &Path) -> io::Result<Option<String>> {
    // The field has different widths and signs on different machines; all magics are 32 bits.
    #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss)]
    let magic = rustix::fs::statfs(folder)?.f_type as u64 & 0xFFFF_FFFF;
    let mounts = if magic == FUSE {
        std::fs::read("/proc/self/mountinfo").unwrap_or_default()
    } else {
        Vec::new()
    };
    Ok(judge(magic, &String::from_utf8_lossy(&mounts), folder))
}

fn judge(magic: u64, mounts: &str, folder: &Path) -> Option<String> {
    if magic != FUSE {
        return SHARED
            .iter()
            .find(|(number, _)| *number == magic)
            .map(|(_, name)| (*name).to_owned());
    }
    let kind = mounted_as(mounts, folder)?;
    let name = kind.strip_prefix("fuse.")?;
    SHARED_FUSE
        .iter()
        .any(|shared| name.starts_with(shared))
        .then(|| kind.to_owned())
}

/// The file system type of the innermost mount that holds `folder` (proc(5), mountinfo): the mount
/// point is the fifth field, the type follows a lone dash.
fn mounted_as<'m>(mounts: &'m str, folder: &Path) -> Option<&'m str> {
    mounts
        .lines()
        .filter_map(|line| {
            let point = line.split(' ').nth(4)?.replace("\\040", " ");
            let kind = line.split(" - ").nth(1)?.split(' ').next()?;
            folder.starts_with(&point).then_some((point.len(), kind))
        })
        // The last of equals: a mount over a mount hides it.
        .max_by_key(|(depth, _)| *depth)
        .map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        30 22 0:40 / /home/a\\040b/far rw,nosuid - fuse.sshfs a@b:/ rw\n\
        31 22 0:41 / /mnt/local rw - fuse.ntfs-3g /dev/sdb1 rw\n";

    #[test]
    fn shared_file_systems_are_named() {
        let at = |magic, folder| judge(magic, MOUNTS, Path::new(folder));
        assert_eq!(at(0x6969, "/srv").as_deref(), Some("nfs"));
        assert_eq!(at(0xFF53_4D42, "/srv").as_deref(), Some("cifs"));
        assert_eq!(at(FUSE, "/home/a b/far/state").as_deref(), Some("fuse.sshfs"));
    }

    #[test]
    fn local_file_systems_are_not() {
        assert_eq!(judge(0xEF53, MOUNTS, Path::new("/srv")), None);
        assert_eq!(judge(FUSE, MOUNTS, Path::new("/mnt/local/state")), None);
        let folder = tempfile::tempdir().unwrap();
        assert!(kind(folder.path()).is_ok());
    }
}
