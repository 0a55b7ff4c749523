use tempfile::TempDir;

use super::*;

fn open(dir: &TempDir, node_id: NodeId, store_id: &str) -> Result<DataDir, DataDirError> {
    DataDir::open(dir.path().join("deep/data"), node_id, store_id.to_owned())
}

#[test]
fn every_start_of_the_same_store_is_counted() {
    let dir = TempDir::new().unwrap();
    for boots in 1..=3 {
        let data = open(&dir, 7, &format!("store-{boots}")).unwrap();
        assert_eq!(data.boots(), boots);
        assert_eq!(data.store_id(), "store-1");
        assert_eq!((data.node_id(), data.cluster_id()), (7, None));
    }
}

#[test]
fn another_servers_directory_is_refused() {
    let dir = TempDir::new().unwrap();
    drop(open(&dir, 7, "store").unwrap());
    let error = open(&dir, 8, "store").unwrap_err();
    assert!(matches!(error, DataDirError::OtherNode { found: 7, wanted: 8, .. }), "{error}");
    assert_eq!(open(&dir, 7, "store").unwrap().boots(), 2, "a refused start counts as none");
}

#[test]
fn a_directory_belongs_to_one_cluster_for_good() {
    let dir = TempDir::new().unwrap();
    let data = open(&dir, 7, "store").unwrap();
    data.adopt_cluster("first").unwrap();
    data.adopt_cluster("first").unwrap();
    assert!(matches!(data.adopt_cluster("second"), Err(DataDirError::OtherCluster { .. })));
    drop(data);
    let data = open(&dir, 7, "store").unwrap();
    assert_eq!(data.cluster_id().as_deref(), Some("first"));
    assert!(data.adopt_cluster("second").is_err());
}

#[test]
fn a_directory_in_use_is_refused() {
    let dir = TempDir::new().unwrap();
    let data = open(&dir, 7, "store").unwrap();
    let another = data.clone();
    assert!(matches!(open(&dir, 7, "store"), Err(DataDirError::InUse(_))));
    drop(data);
    assert!(matches!(open(&dir, 7, "store"), Err(DataDirError::InUse(_))));
    drop(another);
    open(&dir, 7, "store").unwrap();
}

#[test]
fn a_directory_of_something_else_is_refused_and_left_as_it_is() {
    for strange in ["file", ".hidden", "sub/"] {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("data");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        match strange.strip_suffix('/') {
            Some(name) => fs::create_dir(path.join(name)).unwrap(),
            None => fs::write(path.join(strange), "x").unwrap(),
        }
        let error = DataDir::open(&path, 7, "store".to_owned()).unwrap_err();
        assert!(matches!(error, DataDirError::NotEmpty { .. }), "{error}");
        assert!(error.to_string().contains(strange.trim_end_matches('/')), "{error}");
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
    }
}

#[test]
fn an_empty_directory_and_one_whose_first_start_was_cut_short_are_taken() {
    for present in [&[][..], &["lost+found"], &["lock", "mark"], &["lock", "mark.tmp", "a.pid"]] {
        let dir = TempDir::new().unwrap();
        for name in present {
            fs::write(dir.path().join(name), "").unwrap();
        }
        DataDir::open(dir.path(), 7, "store".to_owned()).unwrap();
    }
}

#[test]
fn an_error_of_the_file_system_says_where_and_what_to_do() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = DataDir::open(&path, 7, "store".to_owned()).unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        assert!(error.contains("must be directories"), "{error}");
    }
    let said = |kind: io::ErrorKind| {
        let source = io::Error::from(kind);
        DataDirError::Io { path: file.clone(), source }.to_string()
    };
    assert!(said(io::ErrorKind::PermissionDenied).contains("must own the data directory"));
    assert!(said(io::ErrorKind::StorageFull).contains("`ballast`"));
    assert!(said(io::ErrorKind::FileTooLarge).contains("ulimit -f"));
}

#[test]
fn a_damaged_or_missing_identity_is_refused_with_the_files_name() {
    let dir = TempDir::new().unwrap();
    let data = open(&dir, 7, "store").unwrap();
    fs::create_dir(data.log_dir()).unwrap();
    drop(data);
    let file = dir.path().join("deep/data/identity");
    let sound = fs::read(&file).unwrap();
    for cut in 0..sound.len() {
        fs::write(&file, &sound[..cut]).unwrap();
        let error = open(&dir, 7, "store").unwrap_err();
        assert!(matches!(error, DataDirError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("deep/data/identity"), "{error}");
    }
    for byte in 0..sound.len() {
        let mut damaged = sound.clone();
        damaged[byte] ^= 0xff;
        fs::write(&file, damaged).unwrap();
        assert!(matches!(open(&dir, 7, "store"), Err(DataDirError::Damaged { .. })));
    }
    fs::remove_file(&file).unwrap();
    assert!(matches!(open(&dir, 7, "store"), Err(DataDirError::NoIdentity { .. })));
}

#[test]
fn the_ballast_is_written_when_it_is_asked_for_and_not_before() {
    let dir = TempDir::new().unwrap();
    let opened = open(&dir, 7, "store").unwrap();
    let ballast = dir.path().join("deep/data/ballast");
    assert!(!opened.has_ballast() && !ballast.exists());
    opened.write_ballast().unwrap();
    assert!(opened.has_ballast());
    assert_eq!(fs::metadata(&ballast).unwrap().len(), BALLAST_BYTES as u64);
    fs::remove_file(&ballast).unwrap();
    drop(opened);
    assert!(!open(&dir, 7, "store").unwrap().has_ballast(), "a start takes none of the room");
}

#[test]
fn a_data_directory_is_its_owners_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("deep/data");
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    drop(open(&dir, 7, "store").unwrap());
    assert_eq!(mode(), 0o700);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    drop(open(&dir, 7, "store").unwrap());
    assert_eq!(mode(), 0o700, "one of an earlier version is closed");
}

#[test]
fn a_condemned_directory_is_opened_by_recovery_only() {
    let dir = TempDir::new().unwrap();
    let data = open(&dir, 7, "store").unwrap();
    assert_eq!(data.condemned().unwrap(), None);
    data.condemn("it lacks entry 5").unwrap();
    drop(data);
    let refused = open(&dir, 7, "store").unwrap_err().to_string();
    assert!(
        refused.contains("deep/data/condemned: ") && refused.ends_with(": it lacks entry 5"),
        "{refused}"
    );
    let stopped = DataDir::open_stopped(dir.path().join("deep/data")).unwrap();
    assert_eq!(stopped.condemned().unwrap().as_deref(), Some("it lacks entry 5"));
    assert_eq!(stopped.boots(), 1, "a start that is refused is none");
    // What recovery makes of it is another part.
    stopped.switch_to_next_part("other".to_owned(), "cluster".to_owned()).unwrap();
    drop(stopped);
    assert_eq!(open(&dir, 7, "store").unwrap().boots(), 2);
}

#[test]
fn a_pipe_or_device_in_the_place_of_a_file_is_refused_at_once() {
    let dir = TempDir::new().unwrap();
    drop(open(&dir, 7, "store").unwrap());
    let data = dir.path().join("deep/data");
    for name in ["identity", "lock", "condemned"] {
        let (path, aside) = (data.join(name), data.join("aside"));
        let had = fs::rename(&path, &aside).is_ok();
        for target in ["/dev/zero", "a pipe"] {
            match target {
                "a pipe" => {
                    let made = std::process::Command::new("mkfifo").arg(&path).status();
                    assert!(made.unwrap().success());
                }
                device => std::os::unix::fs::symlink(device, &path).unwrap(),
            }
            let refused = open(&dir, 7, "store").unwrap_err().to_string();
            assert!(refused.contains("no regular file") && refused.contains(name), "{refused}");
            fs::remove_file(&path).unwrap();
        }
        if had {
            fs::rename(&aside, &path).unwrap();
        }
    }
    assert_eq!(open(&dir, 7, "store").unwrap().boots(), 2);
}
