//! Which file systems tell us about changes, and which have to be asked.
//!
//! The kernel accepts a watch on any folder, but reports only what passes through this machine's own
//! kernel: what another client writes to a share, or a host writes to a shared folder, is never told.
//! Such file systems are polled. The magic numbers are those of statfs(2) and of `linux/magic.h`.

use rustix::fd::AsFd;

/// Whether notifications can be relied on as hints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsKind {
    /// Changes are made through this kernel, so it tells.
    Local,
    /// Changes can be made elsewhere; the name is what people call this file system.
    Remote(&'static str),
}

/// Magic number and name of each file system that has to be asked.
const REMOTE: &[(u64, &str)] = &[
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFE53_4D42, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9p"),
    (0x786F_4256, "VirtualBox shared folder"),
    (0xBACB_ACBC, "VMware shared folder"),
    (0x7C7C_6673, "Parallels shared folder"),
    (0x00C3_6400, "Ceph"),
    (0x0BD0_0BD0, "Lustre"),
    (0x1983_0326, "BeeGFS"),
    (0x2003_0528, "OrangeFS"),
    (0x4750_4653, "GPFS"),
    (0x5346_414F, "AFS"),
    (0x6B41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x564C, "NCP"),
    (0x7461_636F, "OCFS2"),
    (0x0116_1970, "GFS2"),
    (0x9FA0, "proc"),
    (0x6265_6572, "sysfs"),
];

/// The kind of the file system an open file or folder lies on. One that cannot be asked counts as
/// local: the slow scan covers it all the same.
pub fn kind_of(handle: impl AsFd) -> FsKind {
    match rustix::fs::fstatfs(handle) {
        // f_type is a signed word of varying width: the low 32 bits are the magic number everywhere.
        Ok(stat) => kind(stat.f_type as u64 & 0xFFFF_FFFF),
        Err(_) => FsKind::Local,
    }
}

/// The kind behind a magic number.
fn kind(magic: u64) -> FsKind {
    REMOTE
        .iter()
        .find(|(known, _)| *known == magic)
        .map_or(FsKind::Local, |(_, name)| FsKind::Remote(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_polled_and_disks_are_not() {
        assert_eq!(kind(0x6969), FsKind::Remote("NFS"));
        assert_eq!(kind(0xFF53_4D42), FsKind::Remote("CIFS"));
        assert_eq!(kind(0xEF53), FsKind::Local, "ext4");
        assert_eq!(kind(0x0102_1994), FsKind::Local, "tmpfs");
    }

    #[test]
    fn proc_is_not_local() {
        let handle = std::fs::File::open("/proc").unwrap();
        assert_eq!(kind_of(&handle), FsKind::Remote("proc"));
    }
}
