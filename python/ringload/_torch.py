"""Tensors of the native module as torch's: a stand-in until the package has its own."""
import torch
_D={"F64":"float64","F32":"float32","F16":"float16","BF16":"bfloat16","I64":"int64","I32":"int32","I16":"int16","I8":"int8","U8":"uint8","BOOL":"bool","C64":"complex64","U64":"uint64","U32":"uint32","U16":"uint16","F8_E4M3":"float8_e4m3fn","F8_E5M2":"float8_e5m2","F8_E8M0":"float8_e8m0fnu","F8_E4M3FNUZ":"float8_e4m3fnuz","F8_E5M2FNUZ":"float8_e5m2fnuz","F4":"float4_e2m1fn_x2"}
def to_torch(t):
    x=torch.utils.dlpack.from_dlpack(t.plain_dlpack())
    d=getattr(torch,_D[t.dtype])
    return x if x.dtype==d else x.view(d)
class TorchLayouts:
    def of_bytes(self,item,memory):
        d=getattr(torch,_D[item.dtype]); shape=list(item.shape)
        if item.dtype=="F4": shape[-1]//=2
        return memory.view(d).reshape(shape)
    def bytes_of(self,tensor):
        return tensor.reshape(-1).view(torch.uint8)
