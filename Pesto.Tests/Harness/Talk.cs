using System.Net.Sockets;
using System.Text;

namespace Pesto.Tests.Harness;

/// <summary>What clients do with a connected socket.</summary>
static class Talk
{
    /// <summary>Sends bytes and reads as many back.</summary>
    public static byte[] Exchange(this Socket socket, byte[] bytes)
    {
        for (int sent = 0; sent < bytes.Length;)
            sent += socket.Send(bytes.AsSpan(sent));
        return socket.ReadExactly(bytes.Length);
    }

    public static string Exchange(this Socket socket, string text) => Encoding.UTF8.GetString(socket.Exchange(Encoding.UTF8.GetBytes(text)));

    public static byte[] ReadExactly(this Socket socket, int count)
    {
        byte[] bytes = new byte[count];
        for (int got = 0; got < count;)
        {
            int more = socket.Receive(bytes.AsSpan(got));
            if (more == 0)
                throw new EndOfStreamException($"the other side closed after {got} bytes of {count}");
            got += more;
        }

        return bytes;
    }

    public static string ReadToEnd(this Socket socket)
    {
        MemoryStream all = new();
        byte[] buffer = new byte[65536];
        int count;
        while ((count = socket.Receive(buffer)) > 0)
            all.Write(buffer, 0, count);
        return Encoding.UTF8.GetString(all.ToArray());
    }

    /// <summary>Closes with an RST instead of a FIN.</summary>
    public static void Reset(this Socket socket)
    {
        socket.LingerState = new LingerOption(true, 0);
        socket.Close();
    }
}
