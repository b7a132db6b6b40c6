//! Elements narrower than a byte, packed as in ONNX `raw_data`.
use fcc_ir::{DType, Tensor};

#[test]
fn narrow_elements_lie_low_bits_first() {
    let pack = |dtype, elems: &[u8]| {
        let t = Tensor::from_unpacked_bits(dtype, vec![elems.len()], elems).unwrap();
        assert_eq!(t.unpacked_bits(), elems, "{dtype}");
        t.bytes().to_vec()
    };
    assert_eq!(pack(DType::U4, &[1, 2, 15]), [0x21, 0x0f]);
    assert_eq!(pack(DType::I2, &[1, 2, 3, 0, 1]), [0b00_11_10_01, 1]);
    // x0 | (x1 & 3) << 6, x1 >> 2 | (x2 & 15) << 4, x2 >> 4 | x3 << 2
    assert_eq!(pack(DType::F6E2M3, &[0x3f, 0x15, 0x2a, 0x33, 0x21]), [0x7f, 0xa5, 0xce, 0x21]);
    assert_eq!(pack(DType::F6E3M2, &[]), []);
    assert_eq!(pack(DType::U8, &[7, 255]), [7, 255]);
}
