use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use http::{Method, StatusCode, Version};

use super::super::{Ending, Lasting};
use super::*;

fn record() -> Record {
    let mut record = Record::new("192.0.2.1".parse().unwrap(), Version::HTTP_2);
    record.method = Some(Method::GET);
    record.target = Some("/a?secret=1".parse().unwrap());
    record.status = Some(StatusCode::OK);
    record.ending = Some(Ending::Complete);
    record
}

/// An empty folder of this test.
fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("cok-access-log-{name}-{}", std::process::id()));
    let _absent = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).unwrap();
    folder
}

fn to(path: &std::path::Path) -> Config {
    Config { to: Some(Destination::File(path.to_owned())), ..Config::default() }
}

fn lines(path: &std::path::Path) -> Vec<serde_json::Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_rotation_loses_no_line_and_puts_each_into_its_file() {
    let folder = folder("rotation");
    let (path, old) = (folder.join("log"), folder.join("log.1"));
    let log = AccessLog::default();
    log.start(to(&path));
    for _ in 0..1000 {
        log.finished(&record());
    }
    fs::rename(&path, &old).unwrap();
    let prepared = AccessLog::prepare(&to(&path)).unwrap();
    log.apply(prepared);
    for _ in 0..10 {
        log.finished(&record());
    }
    log.flush();
    assert_eq!((lines(&old).len(), lines(&path).len()), (1000, 10));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o007, 0);
    let line = &lines(&path)[0];
    assert_eq!((&line["path"], &line["status"], &line["ending"]), (&"/a".into(), &200.into(), &"complete".into()));
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn lines_that_cannot_be_written_are_counted_and_nothing_waits() {
    let lost = Counter::default();
    let log = AccessLog::new(lost.clone());
    log.start(to("/dev/full".as_ref()));
    let began = Instant::now();
    for _ in 0..100 {
        log.finished(&record());
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    log.flush();
    assert_eq!(lost.get(), 100);
}

#[test]
fn a_file_that_cannot_be_opened_leaves_what_there_was() {
    let folder = folder("missing");
    let log = AccessLog::default();
    log.start(to(&folder.join("log")));
    AccessLog::prepare(&to(&folder.join("none/log"))).unwrap_err();
    log.finished(&record());
    log.flush();
    assert_eq!(lines(&folder.join("log")).len(), 1);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_sample_has_both_lines_of_an_exchange_and_every_failure() {
    let folder = folder("sample");
    let path = folder.join("log");
    let log = AccessLog::default();
    log.start(Config { sample: 1, ..to(&path) });
    for number in 0..200 {
        let mut lasting = Record { id: number, lasting: Some(Lasting::WebSocket), ending: None, ..record() };
        log.began_lasting(&lasting);
        lasting.ending = Some(Ending::VisitorLeft);
        log.finished(&lasting);
    }
    for number in 1..5 {
        log.finished(&Record { id: number, ending: Some(Ending::Broken("service_broke")), ..record() });
    }
    log.flush();
    let lines = lines(&path);
    let count = |event: &str| lines.iter().filter(|line| line["event"] == event).count();
    assert_eq!((count("stream_began"), count("stream_ended"), count("request")), (2, 2, 4));
    assert_eq!(lines[4]["reason"], "service_broke");
    fs::remove_dir_all(folder).unwrap();
}
