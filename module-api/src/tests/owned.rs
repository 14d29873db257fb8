//! Boxes, vectors and strings in shared memory.

use crate::fake::{fake, install};
use crate::prelude::*;

fn blocks() -> usize {
    install();
    fake(|fake| fake.blocks.len())
}

#[test]
fn a_box_is_freed_or_given_away() {
    assert_eq!(blocks(), 0);
    let mut boxed = ShmBox::new([1_u64, 2]).unwrap();
    boxed[0] = 7;
    assert_eq!((*boxed, blocks()), ([7, 2], 1));
    drop(boxed);
    assert_eq!(blocks(), 0);
    let shared = ShmBox::new(5_u32).unwrap().into_shared();
    assert_eq!((*shared, blocks()), (5, 1));
    fake(|fake| fake.memory = 10);
    let text = ShmBox::new([0_u8; 100]).unwrap_err().to_string();
    assert!(text.contains("100 bytes") && text.contains("shared_memory"), "{text}");
}

#[test]
fn a_vector_grows_and_shrinks() {
    let mut vector = ShmVec::new();
    assert_eq!((vector.len(), vector.pop(), blocks()), (0, None, 0));
    for number in 0..1000_u64 {
        vector.push(number).unwrap();
    }
    assert_eq!((vector.len(), vector[999], blocks()), (1000, 999, 1));
    vector[3] = 0;
    vector.extend_from_slice(&[1, 2, 3]).unwrap();
    assert_eq!((vector.pop(), vector.swap_remove(3), vector[3], vector.swap_remove(5000)), (Some(3), Some(0), 2, None));
    vector.truncate(2);
    assert_eq!(&*vector, [0, 1]);
    fake(|fake| fake.memory = 100);
    assert!(vector.extend_from_slice(&[0; 10_000]).is_err());
    assert!(vector.reserve(usize::MAX).is_err());
    assert_eq!(&*vector, [0, 1], "nothing has changed");
    drop(vector);
    assert_eq!(blocks(), 0);
}

crate::shm_struct! {
    struct Names {
        lines: ShmVec<ShmString>,
        last: ShmString,
    }
}

#[test]
fn they_nest_and_can_be_in_shared_structures() {
    install();
    let mut names = ShmBox::new(Names { lines: ShmVec::new(), last: ShmString::new() }).unwrap();
    for text in ["a", "", "größer"] {
        let mut line = ShmString::new();
        line.push_str(text).unwrap();
        line.push_str("!").unwrap();
        names.lines.push(line).unwrap();
        names.last.clear();
        names.last.push_str(text).unwrap();
    }
    assert_eq!((names.lines.len(), &*names.lines[2], &*names.last), (3, "größer!", "größer"));
    assert_eq!((names.last.to_string(), format!("{:?}", names.lines)), ("größer".into(), r#"["a!", "!", "größer!"]"#.into()));
    assert_eq!(blocks(), 6);
    names.lines.truncate(1);
    assert_eq!(blocks(), 4);
}
