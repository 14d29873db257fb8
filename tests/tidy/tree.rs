//! The files that the rules look at: those of the repository, or a made-up tree that breaks a rule.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use harness::built;

/// Text files by their path from the repository's root, with slashes.
pub struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// The repository, without build output and hidden folders. Read once per test program.
    pub fn repository() -> &'static Self {
        static TREE: OnceLock<Tree> = OnceLock::new();
        TREE.get_or_init(|| {
            let mut files = BTreeMap::new();
            read_folder(built::root(), "", &mut files);
            let tree = Self { files };
            // A rule over no files holds always.
            for folder in ["host/src", "module-api/src", "modules", "tests"] {
                assert!(tree.under(folder, "rs").count() > 5, "no sources under {folder}");
            }
            tree
        })
    }

    /// A made-up tree of these paths and texts.
    pub fn of(files: &[(&str, &str)]) -> Self {
        Self { files: files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect() }
    }

    pub fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Paths and texts of all files.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Paths and texts of the files below a folder whose name ends in a dot and the extension.
    pub fn under(&self, folder: &str, extension: &str) -> impl Iterator<Item = (&str, &str)> {
        let (folder, end) = (format!("{folder}/"), format!(".{extension}"));
        self.all().filter(move |(path, _)| path.starts_with(&folder) && path.ends_with(&end))
    }

    /// Names of the folders directly in a folder.
    pub fn folders(&self, folder: &str) -> Vec<String> {
        let start = format!("{folder}/");
        let below = self.files.keys().filter_map(|path| path.strip_prefix(&start)?.split_once('/'));
        let mut names: Vec<String> = below.map(|(name, _)| name.to_owned()).collect();
        names.dedup();
        names
    }
}

fn read_folder(folder: &Path, name: &str, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())).flatten() {
        let (path, entry_name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if entry_name == "target" || entry_name.starts_with('.') {
            continue;
        }
        let name = if name.is_empty() { entry_name } else { format!("{name}/{entry_name}") };
        if path.is_dir() {
            read_folder(&path, &name, files);
        } else {
            // A file that is not text has an empty text here.
            files.insert(name, fs::read_to_string(&path).unwrap_or_default());
        }
    }
}
