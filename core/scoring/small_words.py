"""Frequent words of languages in Latin script, and beginnings and ends of words that mark them: our own short lists."""

from typing import Final

SMALL_WORDS: Final = {
    "en": "the and of to is in that it you for with this are was what how do does not have be can my from which will "
    "there when who why would should could they we your its an if or but has been about i me please a as at by on "
    "so no more most than then them these those he she his her our us had did am any all some into over only also "
    "just like such because where while after before between during through against without within don't doesn't "
    "isn't can't i'm it's what's let's here up out off down both each every other another same own too very much "
    "many few first last next new old good bad best better great big small long short high low right left make "
    "makes made making get gets got give gives given go going went take takes took come comes came see saw know "
    "knows knew think thought want wants need needs use used using find found tell say said says show shows write "
    "writes written read help work works working run running try put keep let look call ask asked feel seem become "
    "leave mean set change changes move play turn start starts stop open close people person man woman men women "
    "child children kid friend friends family life day days year years week month time times today tomorrow "
    "yesterday morning night hour minute thing things way ways place home house world country city water food money "
    "book story question questions answer answers problem problems example examples number numbers name names list "
    "word words text letter sentence line lines page file files folder table column row data value values code "
    "function class method variable string error errors test tests server user users password account order price "
    "card bank email message phone computer program game image picture video music song movie school job company "
    "business attack attacks plan plans detailed detail details harm sell personal private public legal illegal law "
    "medical health drug drugs weapon weapons bomb credit technique techniques methods strategy tips advice provide "
    "suggest propose outline offer share discuss recommend define classify either white black red blue green yellow "
    "animal animals foods sport war state states president racist stupid shit fuck ass bitch lol yeah yes sorry "
    "love hate remind alarm weather news light lights volume radio ticket flight hotel restaurant booking refund "
    "cancel invoice delivery shipping payment explain describe create build buy pay send delete remove add update "
    "convert translate compare calculate summarize summarise generate install check fix kill steal hack break learn "
    "teach difference don doesn isn didn won couldn ll ve re being done having one two three four five six seven "
    "eight nine ten",
    "de": "der die das und ist nicht ich ein eine einen wie zu den mit von für auf was sie es im dem wir kann auch aber "
    "wenn werden wird sind mir mich bitte warum haben hat oder nach bei aus noch nur über du er ihr mein meine "
    "meinen dein deine sein seine zum zur am als dass doch schon mehr sehr immer wieder heute morgen gibt gut gute "
    "geht machen macht muss möchte will soll können könnte würde hier dort dann denn weil ob kein keine wo wer wann "
    "welche welcher man uns euch einem einer eines unter vor zwischen gegen durch ohne bis seit danke hallo erkläre "
    "schreibe schreib etwas nichts alle viel viele jetzt habe hatte wurde waren war bin bist seid diese dieser "
    "dieses diesen funktioniert",
    "fr": "le la les des et est un une je vous que qui dans pour pas ce sur avec il elle nous au aux du comment pourquoi "
    "mais ou être sont plus cette faire peut mon votre ne se si d l c j s'il de en tu te me ma mes ton ta tes son "
    "sa ses leur leurs y on par comme tout tous toute très bien quel quelle quand où dont donc car sans sous entre "
    "chez après avant aussi encore merci bonjour veux voudrais peux puis dois faut avez avons ai as ont été fait "
    "qu'est c'est n'est quoi moi toi lui eux ces cet notre quelque écris explique peu beaucoup",
    "es": "el la los las de que y en un una es por con para no se lo como qué cómo del al su me mi pero está son puedo "
    "hay más muy cuando quiero este esta porque tengo favor yo tú te mis tu tus sus nos le les ya o si sí sin sobre "
    "entre hasta desde donde dónde quién cuál cuánto cuándo también todo todos toda nada algo alguien hacer hace "
    "puede pueden ser estar fue era eso esto ese esa estos estas otro otra bien gracias hola necesito explica "
    "escribe dime cada mucho muchos ha he han tiene usted",
    "pt": "o a os as de que e em um uma é por com para não se como do da dos das no na ao meu minha mas você são posso "
    "mais muito quando isso este esta porque tenho está eu ele ela nos nas pelo pela seu sua seus suas te me já ou "
    "sem sobre entre até onde quem qual quanto também tudo todos toda nada algo fazer faz pode podem ser estar foi "
    "era isto esse essa outro outra bem obrigado obrigada olá preciso quero explique escreva cada há têm tem à às "
    "num numa lhe vocês nosso",
    "it": "il lo la gli le di che e in un una è per con non si come del della dei al mio mia ma sono posso più molto "
    "quando questo questa perché ho cosa anche nel alla dove io ci i a da dal dalla nella delle degli sul sulla tu "
    "mi ti se o chi quale quanto tutto tutti niente qualcosa fare fa può possono essere stato stata era quello "
    "quella altro altra bene grazie ciao vorrei voglio spiega scrivi ogni sempre già ancora senza tra fra prima "
    "dopo così hai ha hanno nostro suo sua",
    "nl": "de het een en van ik is niet dat die in op te zijn voor met hoe wat kan je mijn maar ook wij naar als dit deze "
    "waarom wordt heeft hebben om er bij uit nog aan door over tot dan geen we jij hij zij u uw jouw ons onze hun "
    "wie waar wanneer welke moet moeten wil kunnen zou worden was waren ben bent heb had meer veel heel goed graag "
    "dank hallo alleen iets niets alle andere onder tussen zonder schrijf leg doen maken gaat",
    "pl": "i w na z się nie to jest jak do że co czy mam mój dla ale o po za od przez tym jestem można chcę są był tak "
    "proszę dlaczego kiedy moje ten ta ja ty on ona my wy oni mnie mi cię go jej ich tego tej te tylko już jeszcze "
    "bardzo może mogę gdzie kto który która które przy pod nad bez lub albo oraz żeby jeśli będzie było być "
    "dziękuję cześć napisz wyjaśnij",
    "sv": "och att det som en på är av för med jag inte den till har de hur vad kan min du om men så från vi ett var när "
    "varför skulle också eller detta mig han hon mitt mina din ditt dig oss er sig sin bara mycket mer finns ska "
    "vill måste göra gör vara blir blev hade där här vem vilken vilka efter under mellan utan tack hej skriv "
    "förklara",
    "da": "og at det som en på er af for med jeg ikke den til har de hvordan hvad kan min du om men så fra vi et var når "
    "hvorfor skulle også eller dette mig han hun mit mine din dit dig os sig sin bare meget mere findes skal vil må "
    "gøre være bliver blev havde der her hvem hvilken efter under mellem uden tak hej skriv forklar nogle",
    "no": "og at det som en på er av for med jeg ikke den til har de hvordan hva kan min du om men så fra vi et var når "
    "hvorfor skulle også eller dette meg han hun mitt mine din ditt deg oss seg sin bare mye mer finnes skal vil må "
    "gjøre være blir ble hadde der her hvem hvilken etter under mellom uten takk hei skriv forklar noen ei",
    "fi": "ja on ei se että en oli mutta kun niin hän minä sinä me te he mitä miten miksi missä kuka voi voin olla olen "
    "ole ovat myös tai jos vain kuin nyt sitten tämä nämä sen siitä minun sinun hänen minulle kanssa ilman jälkeen "
    "ennen koska kiitos hei kirjoita selitä hyvin paljon jotka joka haluan pitää tehdä",
    "cs": "a v na se je že to s z do o jak co pro ale i k po za od by jsem jsou není byl bylo být mám máte může mohu proč "
    "kdy kde kdo který která které také nebo jen už ještě velmi tak ten ta toto tohle můj moje svůj prosím děkuji "
    "ahoj napiš vysvětli přes bez pod nad při mezi když protože aby jako",
    "ro": "și de la în a că nu este un o pe cu care să din pentru sunt ce mai cum am dar ai se le mi îmi te ne eu tu el "
    "ea noi voi ei lor lui mea meu după fără prin despre între când unde cine cât foarte mult poate pot vreau "
    "trebuie fost fi are mulțumesc bună scrie explică acest această acum",
    "hu": "a az és hogy nem is egy van de ez azt mint csak meg már még én te ő mi ti ők lehet kell volt lesz vagy ha mert "
    "hogyan miért mikor hol ki milyen nagyon minden ezt erre arra nekem köszönöm szia kérem írj magyarázd el fel be "
    "után előtt nélkül között szeretnék tudok tud amely aki ami",
    "vi": "là của và có không được cho một các những này trong với để người tôi bạn như thế nào khi đã sẽ đang rất nhiều "
    "làm cách gì tại sao ở ra về từ đến hay hoặc cũng nhưng nếu thì vì viết giải thích hãy xin chào cảm ơn",
    "id": "yang dan di ke dari ini itu untuk dengan tidak adalah saya anda aku kamu dia kami kita mereka akan bisa dapat "
    "ada pada dalam atau juga sudah belum bagaimana apa mengapa kenapa kapan siapa mana tolong terima kasih "
    "jelaskan tulis buat lebih sangat banyak karena jika kalau tetapi tapi seperti oleh sebagai harus ingin agar "
    "tentang",
    "ca": "el la els les de que i en un una és per amb no es ho com què del al seu em meu però està són puc hi ha més "
    "molt quan vull aquest aquesta perquè tinc jo tu nosaltres vosaltres dels als pels pel sense sobre entre fins "
    "també tot tots res fer fa pot poden ser estar va era això gràcies hola necessito explica escriu cada",
    "hr": "i u na je se da su za od s sa ne to što kako koji koja koje ali ili ako kao bi sam si smo ste nije bio bila "
    "biti može mogu moram želim zašto kada gdje tko samo još već vrlo jako moj moja tvoj ovaj ova ovo taj hvala bok "
    "molim napiši objasni iz do po pri bez između nakon prije",
    "sw": "na ya wa kwa ni za la katika kuwa hii hiyo huu huo cha vya watu mimi wewe yeye sisi wao yangu yako yake wangu "
    "wako nini jinsi gani kwamba kama lakini au pia sana hapa kuna hakuna tafadhali asante habari nataka naweza "
    "ninaweza ili bila baada kabla kila mtu kitu siku leo andika eleza",
    "tl": "ang ng mga sa na ay at ko mo ako ikaw siya kami tayo sila ito iyon para kung hindi ano paano bakit kailan saan "
    "sino may mayroon wala gusto dapat pwede po opo salamat din rin lang naman kasi dahil pero o namin natin nila "
    "kanya isang tungkol gawin isulat ipaliwanag",
    "tr": "ve bir bu için ne nasıl ile de da mi mı çok ben benim var yok daha gibi olarak değil ama neden olan kadar "
    "sonra lütfen bana istiyorum nedir her şey sen o biz siz onlar senin onun hangi kim nerede zaman şu veya ya ki "
    "eğer çünkü en önce olduğu ediyor yapmak teşekkürler merhaba yaz açıkla hakkında arasında",
}
"""In the order in which ties are decided."""

BEGINNINGS: Final = {
    "en": "th wh kn",
    "de": "ge ver sch zw pf",
    "nl": "ge ver sch zij",
    "id": "meng mem ber per",
    "pl": "prze przy wsz",
    "sw": "ku wana nime",
}
ENDS: Final = {
    "en": "ing ings ght ould ly ness ful tion tions ed ies ers able ous ive ship ck",
    "de": "ung ungen keit heit lich isch chen ieren tig",
    "fr": "eau eux ment oir aux ait aient ille tion esse ique eurs",
    "es": "ción ciones ando iendo mente dad ador aron amos emos",
    "pt": "ção ções ões inho mente dade ando ndo eiro eira amos",
    "it": "zione zioni mente aggio ezza etto etti ando endo ità ggio cchio ere ire",
    "nl": "ijk ijke heid tje lijk eren aar",
    "pl": "ość owy owa owie ami ach ego emu czny czna ie",
    "sv": "ning het lig ande arna orna erna",
    "da": "ning hed lig ende erne",
    "no": "ning het lig ende ene",
    "fi": "ssa ssä lla llä sta stä nen minen ksi aan ään iin tta ttä",
    "cs": "ost ní ský ová ého ému ích ami ovat",
    "ro": "ului ilor ție ții ească escu ează ate",
    "hu": "ban ben nak nek ság ség ból ből hoz hez val vel ott ett unk",
    "id": "nya kan lah",
    "ca": "ció cions ment itat eix",
    "hr": "ost ski ova ima ama ije anje enje",
    "tr": "lar ler dir dır yor mak mek iyor lik lık",
    "sw": "isha wake yake",
    "tl": "han hin",
}
