using System.Runtime.CompilerServices;

namespace Pesto.Linux;

/// <summary>
/// An array outside the collected heap, zeroed, of a size that is fixed for the most that there can ever be: pages that are never touched
/// take address space and no memory. It is never freed.
/// </summary>
public readonly unsafe struct NativeArray<T>
    where T : unmanaged
{
    readonly T* _items;

    public NativeArray(int length)
    {
        const int ReadWrite = 3, PrivateAnonymousNoReserve = 0x4022;
        Length = length;
        void* memory = Libc.mmap(null, (nuint)Math.Max(length, 1) * (nuint)sizeof(T), ReadWrite, PrivateAnonymousNoReserve, -1, 0);
        if ((nint)memory == -1)
            throw new LinuxException($"reserving memory for {length} x {sizeof(T)} bytes", (Errno)Libc.Errno);
        _items = (T*)memory;
    }

    public int Length { get; }

    public T* Pointer => _items;

    public ref T this[int index]
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get
        {
            Check.That((uint)index < (uint)Length, "an index is within its array");
            return ref _items[index];
        }
    }

    public Span<T> Span => new(_items, Length);
}
