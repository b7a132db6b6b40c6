//! NumPy files: what is written is read back, and NumPy's own variants are understood.
use bytes::Bytes;
use fcc_ir::{DType, Tensor};
use fcc_onnx::{from_npy_bytes, read_npy, read_npz, to_npy_bytes, write_npy, write_npz};

fn npy(dict: &str, data: &[u8]) -> Bytes {
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((dict.len() as u16).to_le_bytes());
    file.extend(dict.as_bytes());
    file.extend(data);
    file.into()
}

fn header(descr: &str, fortran: &str, shape: &str) -> String {
    format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}")
}

#[test]
fn every_type_that_numpy_has_comes_back() {
    use DType::*;
    let dir = tempfile::tempdir().unwrap();
    for &dtype in DType::ALL {
        let numpy = matches!(
            dtype,
            Bool | I8 | U8 | I16 | U16 | I32 | U32 | I64 | U64 | F16 | F32 | F64 | C64 | C128
        );
        let Some(len) = dtype.byte_len(6) else { continue };
        let data: Vec<u8> =
            (0..len).map(|i| if dtype == Bool { (i % 2) as u8 } else { (i * 7) as u8 }).collect();
        let tensor = Tensor::from_bytes(dtype, vec![2, 3], data.into()).unwrap();
        let path = dir.path().join("a.npy");
        match write_npy(&path, &tensor) {
            Ok(()) => assert_eq!(read_npy(&path).unwrap(), tensor),
            Err(error) => assert!(error.to_string().contains(&format!("got {dtype}, wanted")), "{error}"),
        }
        assert_eq!(to_npy_bytes(&tensor).is_ok(), numpy, "{dtype}");
    }
}

#[test]
fn scalars_empty_arrays_and_text_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let arrays = [
        ("scalar", Tensor::scalar(2.5f32)),
        ("none", Tensor::new(vec![3, 0, 2], Vec::<i64>::new()).unwrap()),
        ("text", Tensor::from_strings(vec![2, 1], ["é", "longer"]).unwrap()),
        ("no text", Tensor::from_strings(vec![0], Vec::<Bytes>::new()).unwrap()),
        ("a/b:0", Tensor::new(vec![2], vec![1u8, 2]).unwrap()),
    ];
    let path = dir.path().join("all.npz");
    write_npz(&path, arrays.iter().map(|(name, t)| (*name, t))).unwrap();
    let first = std::fs::read(&path).unwrap();
    let read = read_npz(&path).unwrap();
    assert_eq!(read.len(), arrays.len());
    for ((name, tensor), (read_name, read_tensor)) in arrays.iter().zip(&read) {
        assert_eq!((*name, tensor), (read_name.as_str(), read_tensor));
    }
    write_npz(&path, arrays.iter().map(|(name, t)| (*name, t))).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first, "the same arrays give the same bytes");
}

#[test]
fn fortran_order_and_big_endian_are_turned() {
    let file = npy(&header(">i2", "True", "(2, 3)"), &[0, 1, 0, 4, 0, 2, 0, 5, 0, 3, 0, 6]);
    let wanted = Tensor::new(vec![2, 3], vec![1i16, 2, 3, 4, 5, 6]).unwrap();
    assert_eq!(from_npy_bytes(file).unwrap(), wanted);
    let cube: Vec<u8> = (0..24).collect();
    let read = from_npy_bytes(npy(&header("|u1", "True", "(2, 3, 4)"), &cube)).unwrap();
    // element [i, j, k] lies at i + 2 j + 6 k
    let at = |n: usize| (n / 12 + 2 * (n / 4 % 3) + 6 * (n % 4)) as u8;
    assert_eq!(read, Tensor::new(vec![2, 3, 4], (0..24).map(at).collect::<Vec<u8>>()).unwrap());
    let complex =
        from_npy_bytes(npy(&header(">c8", "False", "()"), &[0x3f, 0x80, 0, 0, 0x40, 0, 0, 0])).unwrap();
    assert_eq!(&complex.bytes()[..], [1f32.to_le_bytes(), 2f32.to_le_bytes()].concat());
}

#[test]
fn text_in_both_forms_is_read() {
    let bytes = from_npy_bytes(npy(&header("|S3", "False", "(2,)"), b"ab\0xyz")).unwrap();
    assert_eq!(bytes, Tensor::from_strings(vec![2], ["ab", "xyz"]).unwrap());
    let wide = from_npy_bytes(npy(&header(">U1", "False", "()"), &[0, 0, 0, 0xe9])).unwrap();
    assert_eq!(wide, Tensor::from_strings(vec![], ["é"]).unwrap());
    assert!(from_npy_bytes(npy(&header("<U1", "False", "()"), &[0xff; 4])).is_err());
}

#[test]
fn broken_files_are_errors_of_one_line() {
    let table: Vec<(Bytes, &str)> = vec![
        (Bytes::new(), "wanted a NumPy array"),
        (Bytes::from_static(b"1,2,3\n"), "a text file"),
        (Bytes::from_static(b"\x93NUMPY"), "ends in it"),
        (Bytes::from_static(b"\x93NUMPY\x09\x00\x00\x00"), "npy version"),
        (Bytes::from_static(b"\x93NUMPY\x02\x00\xff\xff\xff\xff"), "npy header: got 4294967295 bytes"),
        (npy(&header("<f4", "False", "(2,)"), &[0; 7]), "got 7 bytes, wanted 8"),
        (npy(&header("<f4", "False", "(2,)"), &[0; 9]), "got 9 bytes, wanted 8"),
        (npy(&header("<f4", "False", "(9223372036854775807, 4)"), &[]), "number of elements"),
        (npy(&header("<f8", "False", "(2305843009213693952,)"), &[]), "number of elements"),
        (npy(&header("|S0", "False", "(1000000000,)"), &[]), "at most 1048576 texts without characters"),
        (npy(&header("<U0", "False", "(1073741824,)"), &[]), "at most 1048576 texts without characters"),
        (npy(&header("<U0", "False", "(1152921504606846976,)"), &[]), "number of elements"),
        (npy(&header("<f4", "False", "(0, 4611686018427387904)"), &[]), "number of elements"),
        (npy(&header("|O", "False", "(1,)"), b"\x80\x04."), "Python objects (pickle)"),
    ];
    for (file, wanted) in table {
        let error = from_npy_bytes(file).unwrap_err().to_string();
        assert!(error.contains(wanted) && !error.contains('\n'), "{wanted}: {error}");
    }
}

#[test]
fn damaged_archives_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.npz");
    write_npz(&path, [("x", &Tensor::new(vec![3], vec![1f32, 2., 3.]).unwrap())]).unwrap();
    let good = std::fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 0xff;
        std::fs::write(&path, &flipped).unwrap();
        let _ = read_npz(&path);
        std::fs::write(&path, &good[..at]).unwrap();
        assert!(read_npz(&path).is_err(), "cut at {at}");
    }
    std::fs::write(&path, "text").unwrap();
    let error = read_npz(&path).unwrap_err().to_string();
    assert!(
        error.ends_with("a.npz: the file: got a text file, wanted an npz file, a zip archive of npy files"),
        "{error}"
    );
}

#[test]
fn text_that_padding_makes_out_of_all_proportion_is_not_written() {
    // NumPy pads each text to the longest: 3 GiB
    let mut texts = vec![String::new(); 1 << 10];
    texts.push("x".repeat(3 << 18));
    let tensor = Tensor::from_strings(vec![texts.len()], texts).unwrap();
    let said = to_npy_bytes(&tensor).unwrap_err().to_string();
    assert!(said.contains("1025 texts padded to 786432 characters"), "{said}");
}
